"""The stage policies: the shipped files say what the code would do without them, and a site's file replaces one whole."""

from pathlib import Path

import pytest

from gateway import stages, toml
from gateway.config import SHIPPED_POLICIES
from gateway.model import Action
from gateway.stages import STAGE_FILES, Reports, Routes, Score
from gateway.toml import FaultyFiles


@pytest.mark.parametrize("stem", sorted(STAGE_FILES))
def test_each_stage_ships_a_file_that_says_what_it_is_for(stem):
    text = (SHIPPED_POLICIES / f"{stem}.toml").read_text()
    first = next(line for line in text.splitlines() if not line.startswith("#:schema"))
    assert first.startswith("# ")


@pytest.mark.parametrize("stem", sorted(STAGE_FILES))
def test_each_shipped_file_names_every_setting_with_a_comment(stem):
    """So that nobody has to read code to learn what can be set."""
    text = (SHIPPED_POLICIES / f"{stem}.toml").read_text()
    for key in STAGE_FILES[stem].model_fields:
        assert key in text, f"{key} is missing"


@pytest.mark.parametrize("stem", sorted(set(STAGE_FILES) - {"routes"}))
def test_shipped_values_and_the_defaults_in_the_code_agree(stem):
    path = SHIPPED_POLICIES / f"{stem}.toml"
    table, text = toml.read(path)
    assert toml.validated(STAGE_FILES[stem], table, path, text) == STAGE_FILES[stem]()


def test_a_site_s_file_replaces_the_shipped_one_whole(tmp_path):
    (tmp_path / "score.toml").write_text("quarantine = 3.0\n")
    loaded = stages.load(tmp_path)
    assert loaded.score == Score(quarantine=3.0)
    assert loaded.routes.local == stages.load(None).routes.local
    assert stages.files(tmp_path)["score"] == tmp_path / "score.toml"


def test_faults_of_all_files_are_told_together(tmp_path):
    (tmp_path / "score.toml").write_text("quarantine = nan\n")
    (tmp_path / "queue.toml").write_text("polls = 1\n")
    with pytest.raises(FaultyFiles) as told:
        stages.load(tmp_path)
    assert {Path(fault.file).name for fault in told.value.faults} == {"score.toml", "queue.toml"}


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FaultyFiles, match="is not a folder"):
        stages.load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("score", "action"),
    [
        (-5.0, Action.ACCEPT),
        (5.99, Action.ACCEPT),
        (6.0, Action.QUARANTINE),
        (11.99, Action.QUARANTINE),
        (12.0, Action.REJECT),
    ],
)
def test_a_score_acts_from_its_threshold_on(score, action):
    assert Score().action(score) is action


@pytest.mark.parametrize("value", [True, "6", None])
def test_a_threshold_is_a_number_and_nothing_that_looks_like_one(value):
    with pytest.raises(ValueError):
        Score(quarantine=value)


def test_domains_are_kept_as_the_dns_knows_them():
    assert Routes(local=("EXAMPLE.org", "bücher.example")).local == ("example.org", "xn--bcher-kva.example")


@pytest.mark.parametrize(
    "hostname",
    [
        "gatepost.localhost",
        "mx",
        "mx.example",
        "MX.Example.ORG",
        "mail.test",
        "gw.home.arpa",
        "printer.local",
        "a.invalid",
    ],
)
def test_no_report_goes_out_under_a_name_that_no_mail_host_of_the_world_has(hostname):
    assert not Reports().sends(hostname)
    assert Reports(send="always").sends(hostname)


@pytest.mark.parametrize("hostname", ["mx1.gatepost.de", "example.gatepost.de", "mx.contest", "mx.notexample.org"])
def test_reports_go_out_under_real_names_unless_they_are_switched_off(hostname):
    assert Reports().sends(hostname)
    assert not Reports(send="never").sends(hostname)
