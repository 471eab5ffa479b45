"""Settings: which value wins, where it came from, and what is not accepted."""

from pathlib import Path

import pytest

from overlay.app.config import TABLE, Config, load_config, load_settings, parse_listen, read_words
from overlay.errors import UsageError


def write(folder: Path, text: str) -> Path:
    (folder / "overlay.toml").write_text(text)
    return folder


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environment={})
    assert settings.config == Config()
    assert set(settings.origins.values()) == {"default"}
    assert list(settings.origins) == [setting.key for setting in TABLE]


def test_option_beats_environment_beats_file(tmp_path: Path) -> None:
    folder = write(tmp_path, "rekey_after = 10\nattest_every = 10\ntcti = 'device:a'\n")
    environment = {"OVERLAY_ATTEST_EVERY": "20", "OVERLAY_TCTI": "device:b", "OVERLAY_STATE": "x", "HOME": "/"}
    settings = load_settings(folder, options={"tcti": "device:c", "evidence": None}, environment=environment)
    assert (settings.config.rekey_after, settings.config.attest_every, settings.config.tcti) == (10, 20, "device:c")
    assert settings.origins["rekey_after"] == "overlay.toml"
    assert settings.origins["attest_every"] == "environment OVERLAY_ATTEST_EVERY"
    assert settings.origins["tcti"] == "option"
    assert settings.origins["evidence"] == "default"


def test_every_setting_can_be_given_in_every_way(tmp_path: Path) -> None:
    file = """
        listen = "[::1]:4711"
        seeds = ["192.0.2.1:1", "[2001:db8::1%eth0]:2"]
        mdns = false
        include_loopback = true
        interfaces = ["eth0", "wlan0"]
        evidence = "tpm"
        tcti = "swtpm:path=/x"
        boot_log = "boot"
        ima = "ima"
        rekey_after = 5
        attest_every = 5.5
        log_level = "debug"
    """
    environment = {
        "OVERLAY_LISTEN": "[::1]:4711", "OVERLAY_SEEDS": "192.0.2.1:1, [2001:db8::1%eth0]:2", "OVERLAY_MDNS": "no",
        "OVERLAY_INCLUDE_LOOPBACK": "true", "OVERLAY_INTERFACES": "eth0,wlan0", "OVERLAY_EVIDENCE": "tpm",
        "OVERLAY_TCTI": "swtpm:path=/x", "OVERLAY_REKEY_AFTER": "5", "OVERLAY_ATTEST_EVERY": "5.5",
        "OVERLAY_LOG_LEVEL": "debug", "OVERLAY_BOOT_LOG": "boot", "OVERLAY_IMA": "ima",
    }  # fmt: skip
    words = [
        "--listen", "[::1]:4711", "--seed", "192.0.2.1:1", "--seed", "[2001:db8::1%eth0]:2", "--no-mdns", "--include-loopback",
        "--interface", "eth0", "--interface", "wlan0", "--evidence", "tpm", "--tcti", "swtpm:path=/x", "--rekey-after", "5",
        "--attest-every", "5.5", "--log-level", "debug", "--boot-log", "boot", "--ima", "ima",
    ]  # fmt: skip
    expected = Config(
        listen=("::1", 4711), seeds=("192.0.2.1:1", "[2001:db8::1%eth0]:2"), mdns=False, include_loopback=True,
        interfaces=("eth0", "wlan0"), evidence="tpm", tcti="swtpm:path=/x", rekey_after=5.0, attest_every=5.5,
        log_level="debug", boot_log="boot", ima="ima",
    )  # fmt: skip
    assert load_settings(tmp_path, environment=environment).config == expected
    assert load_settings(tmp_path, options=read_words(words), environment={}).config == expected
    assert load_settings(write(tmp_path, file), environment={}).config == expected


def test_what_is_shown_can_be_written_into_the_file_again(tmp_path: Path) -> None:
    shown = load_settings(tmp_path, options={"listen": "[::]:5", "seeds": ["a:1"]}, environment={}).shown()
    values = {key: value for key, value, _ in shown}
    assert (values["listen"], values["seeds"]) == ("[::]:5", ["a:1"])
    assert load_settings(tmp_path, options=values, environment={}).config.listen == ("::", 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", ("::", 0)),
        ("4711", ("::", 4711)),
        ("192.0.2.1:0", ("192.0.2.1", 0)),
        ("host.example:65535", ("host.example", 65535)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
    ],
)
def test_an_address_to_listen_on_is_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["", "host", "::1:5", "host:", "host:65536", "host:-1", "[host:1", "a b:1", "[]:1", "x:٣"])
def test_what_is_no_address_to_listen_on_is_not_accepted(text: str) -> None:
    with pytest.raises(UsageError, match="address"):
        parse_listen(text)


@pytest.mark.parametrize(
    "text",
    [
        "listen = true",
        "listen = -1",
        "listen = 70000",
        "listen = [1]",
        "seeds = 'a:1'",
        "seeds = ['a']",
        "seeds = [1]",
        "mdns = 'yes'",
        "mdns = 1",
        "interfaces = {}",
        "evidence = 'TPM'",
        "evidence = 1",
        "tcti = ''",
        "tcti = 3",
        "rekey_after = 0.5",
        "rekey_after = 3601",
        "rekey_after = nan",
        "rekey_after = inf",
        "rekey_after = true",
        "rekey_after = '60'",
        "log_level = 'loud'",
        "interfaces = [" + "'x'," * 300 + "]",
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"overlay\.toml") as raised:
        load_settings(write(tmp_path, text), environment={})
    assert raised.value.hint
    assert raised.value.exit_code == 2


def test_an_unknown_key_is_an_error_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'rekey_aftr'") as raised:
        load_settings(write(tmp_path, "rekey_aftr = 5"), environment={})
    assert raised.value.hint == "did you mean rekey_after?"


def test_an_unknown_variable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="OVERLAY_EVIDNCE") as raised:
        load_settings(tmp_path, environment={"OVERLAY_EVIDNCE": "tpm"})
    assert raised.value.hint == "did you mean OVERLAY_EVIDENCE?"


@pytest.mark.parametrize("words", [["--evidnce", "tpm"], ["tpm"], ["--evidence"], ["--no-evidence"]])
def test_unknown_options_and_missing_values_are_errors(words: list[str]) -> None:
    with pytest.raises(UsageError):
        read_words(words)


@pytest.mark.parametrize("content", [b"\xff", b"a = ", b"[" * 50_000, b"# " + b"x" * 70_000])
def test_a_file_that_is_not_toml_or_too_long_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "overlay.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"overlay\.toml"):
        load_settings(tmp_path, environment={})


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "overlay.toml").mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        load_settings(tmp_path, environment={})


def test_the_words_of_a_command_line_give_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVERLAY_STATE", raising=False)
    assert load_config(tmp_path, ["--rekey-after", "5"]).rekey_after == 5.0
