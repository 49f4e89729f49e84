"""A file whose octets are fetched where it is read."""

import io

from gateway.pipeline.seekable import Seekable

OCTETS = bytes(range(100))


def opened(at_hand: int = 100, asked: list[tuple[int, int]] | None = None) -> Seekable:
    def read(place: int, most: int) -> bytes:
        if asked is not None:
            asked.append((place, most))
        return OCTETS[place : place + min(most, at_hand)]

    return Seekable(len(OCTETS), read)


def test_all_of_it_is_read_however_little_is_at_hand() -> None:
    for at_hand in (1, 7, 100):
        assert io.BufferedReader(opened(at_hand), 10).read() == OCTETS


def test_it_goes_to_any_place_and_none_before_the_first() -> None:
    file = opened()
    assert (file.seek(-10, io.SEEK_END), file.read(3)) == (90, OCTETS[90:93])
    assert (file.seek(2, io.SEEK_CUR), file.read(3)) == (95, OCTETS[95:98])
    assert (file.seek(-500, io.SEEK_CUR), file.read(1)) == (0, OCTETS[:1])


def test_nothing_is_asked_for_that_stands_behind_its_end() -> None:
    asked: list[tuple[int, int]] = []
    file = opened(asked=asked)
    assert (file.seek(95), file.read(50)) == (95, OCTETS[95:])
    assert (file.seek(200), file.read(50)) == (200, b"")
    assert asked == [(95, 5)]
