import re
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.access.credentials import KEY_PREFIX, key_digest, new_key, parse_credentials
from service.access.principals import ROLES, Quota
from service.errors import InvalidSettings
from tests.service.access.files import entry

HASH = "ab" * 32


def faults(content: str) -> str:
    with pytest.raises(InvalidSettings) as caught:
        parse_credentials(content.encode(), "keys.toml")
    return str(caught.value)


def test_a_file_says_who_may_come_in_with_what_for_what_and_how_much() -> None:
    content = entry("newsroom", '"translate", "explain"', "ilk_a", expires="2027-01-31", certificate='["a.example"]')
    content += "quota.characters_per_second = 10.5\nquota.burst_characters = 100\nquota.concurrent = 3\n"
    newsroom, ops = parse_credentials((content + entry("ops", '"admin"', "ilk_b")).encode(), "keys.toml")
    assert newsroom.principal.name == "newsroom"
    assert newsroom.principal.roles == {"translate", "explain"}
    assert newsroom.principal.quota == Quota(10.5, 100, None, None, 3)
    assert newsroom.key_digests == (key_digest("ilk_a"),)
    assert newsroom.certificate_names == ("a.example",)
    assert newsroom.expires == date(2027, 1, 31)
    assert ops.principal.quota == Quota() and ops.expires is None


def test_the_last_day_of_a_key_ends_with_it_in_utc() -> None:
    (credential,) = parse_credentials(entry("a", key="ilk_a", expires="1970-01-02").encode(), "keys.toml")
    assert credential.expiry_timestamp == 2 * 86_400


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
def test_any_day_that_toml_can_write_can_be_the_last(day: str) -> None:
    (credential,) = parse_credentials(entry("a", key="ilk_a", expires=day).encode(), "keys.toml")
    assert abs(credential.expiry_timestamp) < 1e12


def test_every_fault_is_told_at_once_with_its_place() -> None:
    content = (
        entry("newsroom", '"translate", "root"', expires='"tomorrow"', key_sha256='["abc"]')
        + entry("has space", '"explain"', key="ilk_a")
        + entry("ops", "", key="ilk_b", quota_concurrent="0", role='"x"')
        + entry("robot", quota_speed="3", key="ilk_c")
    )
    said = faults(content)
    for expected in (
        "keys.toml is wrong",
        "principal 1 ('newsroom'): roles[1]: there is no such role; there are translate, explain, monitor, admin",
        "principal 1 ('newsroom'): key_sha256[0]: a SHA-256 has 64 digits",
        "principal 1 ('newsroom'): expires: ",
        "principal 2: name: write up to 64 letters",
        "principal 3 ('ops'): roles: List should have at least 1 item",
        "principal 3 ('ops'): quota.concurrent: Input should be greater than 0",
        "principal 3 ('ops'): role: there is no such field; there are name, roles, key_sha256, certificate, expires",
        "principal 4 ('robot'): quota.speed: there is no such field; there are characters_per_second",
    ):
        assert expected in said


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (entry("a", key="ilk_a"), entry("a", key="ilk_b"), "name"),
        (entry("a", key="ilk_a"), entry("b", key="ilk_a"), "key_sha256"),
        (entry("a", key_sha256=f'["{HASH}", "{HASH}"]'), entry("b", key="ilk_b"), "key_sha256"),
        (entry("a", certificate='["x"]'), entry("b", certificate='["x"]'), "certificate"),
    ],
)
def test_what_would_make_it_uncertain_who_somebody_is_is_refused(first: str, second: str, what: str) -> None:
    assert f"the same {what} stands there twice: for 'a' and for" in faults(first + second)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "there is no [[principal]]"),
        ("principal = []", "there is no [[principal]]"),
        ("principal = 3", "there is no [[principal]]"),
        ("principal = [3]", "principal 1: "),
        ("[principals]\nname = 'a'", "principals: it stands outside of every [[principal]]"),
        ("[[principal]\n", "it is not TOML"),
        ("a = " + "[" * 100_000, "it is nested too deeply"),
        (entry("a", key="ilk_a", expires="2027-02-30"), "it is not TOML: Invalid date"),
        (entry("a"), "principal 1 ('a'): it has neither key_sha256 nor certificate"),
        (entry("a", certificate='[""]'), "certificate[0]"),
        (entry("a", key="ilk_a", quota_burst_characters="5"), "characters_per_second and burst_characters go together"),
        (entry("a", key="ilk_a", quota_requests_per_second="5"), "requests_per_second and burst_requests go together"),
        (entry("a", key="ilk_a", quota_requests_per_second="inf", quota_burst_requests="1"), "finite"),
    ],
)
def test_each_mistake_has_a_sentence_of_its_own(content: str, expected: str) -> None:
    assert expected in faults(content)


def test_bytes_that_are_no_text_are_refused_with_their_place() -> None:
    with pytest.raises(InvalidSettings, match="it is not UTF-8 at byte 2"):
        parse_credentials(b"# \xff", "keys.toml")


def test_a_key_written_where_its_hash_belongs_is_refused_and_not_repeated() -> None:
    key = new_key()
    said = faults(entry("a", key_sha256=f'["{key}"]'))
    assert "this is a key and not its SHA-256" in said
    assert key.removeprefix(KEY_PREFIX) not in said


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_no_fault_repeats_what_stands_where_a_hash_belongs(value: str) -> None:
    escaped = "".join(f"\\U{ord(character):08x}" for character in value)
    no_hash, a_key = (faults(entry("a", key_sha256=f'["{wrong}"]')) for wrong in ("?", KEY_PREFIX))
    assert faults(entry("a", key_sha256=f'["{escaped}"]')) == (a_key if value.startswith(KEY_PREFIX) else no_hash)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_refused_in_words(content: bytes) -> None:
    with pytest.raises(InvalidSettings, match=r"keys\.toml is wrong"):
        parse_credentials(content, "keys.toml")


def test_new_keys_are_256_random_bits_that_scanners_can_find() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"ilk_[A-Za-z0-9_-]{43}", key) for key in keys)


@settings(deadline=None)
@given(st.text())
def test_whatever_is_sent_as_a_key_has_a_digest(key: str) -> None:
    assert len(key_digest(key)) == 32


def test_every_role_can_be_written_into_a_file() -> None:
    (credential,) = parse_credentials(entry("a", str(list(ROLES))[1:-1], "ilk_a").encode(), "keys.toml")
    assert credential.principal.roles == set(ROLES)
