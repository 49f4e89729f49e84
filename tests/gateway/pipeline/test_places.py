"""Who waits for a confined worker has his turn, however many others wait."""

import asyncio

import pytest

from gateway.pipeline.places import Places


async def waiting(places, *lines):
    """Tasks that wait in *lines*, in this order; each notes its line when it has a place, and gives that back."""
    turns = []

    async def one(line):
        place = await places.wait(line)
        turns.append(line)
        places.give_back(place)

    tasks = [asyncio.create_task(one(line)) for line in lines]
    await asyncio.sleep(0)
    return tasks, turns


def test_what_is_free_is_had_at_once_the_last_used_first():
    async def run():
        places = Places(["old", "new"])
        first = await places.wait("a")
        places.give_back(first)
        assert (places.free, places.take_free(), await places.wait("a"), places.free) == (2, "new", "old", 0)

    asyncio.run(run())


def test_lines_take_turns_so_that_many_of_one_hold_up_none_of_another():
    async def run():
        places = Places(["place"])
        place = places.take_free()
        tasks, turns = await waiting(places, *["flood"] * 5, "single", "pair", "pair")
        places.give_back(place)
        await asyncio.gather(*tasks)
        assert (turns, places.free) == (["flood", "single", "pair", "flood", "pair", "flood", "flood", "flood"], 1)

    asyncio.run(run())


@pytest.mark.parametrize("handed", [False, True])
def test_who_gives_up_takes_no_place_along(handed):
    async def run():
        places = Places(["place"])
        place = places.take_free()
        tasks, turns = await waiting(places, "gone", "gone", "patient")
        if handed:
            places.give_back(place)  # to the first, which has not heard of it yet
        tasks[0].cancel()
        if not handed:
            places.give_back(place)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[0].cancelled()
        assert (sorted(turns), places.free) == (["gone", "patient"], 1)

    asyncio.run(run())
