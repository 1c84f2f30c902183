"""What `coursewire backup` refuses before it begins."""

from __future__ import annotations

from click.testing import CliRunner

from service.cli import coursewire


def test_a_file_is_replaced_only_by_force_and_a_missing_directory_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSEWIRE_DATA_DIR", str(tmp_path))
    (tmp_path / "b").write_text("kept")
    for name, said in (
        ("b", "give --force"),
        ("no/b", f"directory {tmp_path}/no does not exist"),
    ):
        refused = CliRunner().invoke(coursewire, ["backup", f"{tmp_path}/{name}"])
        assert refused.exit_code == 2
        assert said in refused.output
    forced = CliRunner().invoke(coursewire, ["backup", "--force", f"{tmp_path}/b"])
    assert "holds no data" in str(forced.exception)
    assert (tmp_path / "b").read_text() == "kept"
