import os

import pytest

from pipelines.files import write_file, writing


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_folders_after(tmp_path, monkeypatch):
    """What a power cut leaves is what was synced: the order is the promise."""
    seen, fsync, replace = [], os.fsync, os.replace

    def note_fsync(number):
        seen.append(os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr("pathlib.os.replace", lambda a, b: (seen.append("replace"), replace(a, b)))
    write_file(tmp_path / "a" / "b" / "file", b"whole")
    assert [os.path.relpath(name, tmp_path) if name != "replace" else name
            for name in seen[:2]] == [".", "a"]  # the folders, each in the one above it
    assert seen[2].endswith(".tmp") and seen[3:] == ["replace", str(tmp_path / "a" / "b")]


def test_an_error_leaves_what_was_there_and_no_temporary_file(tmp_path):
    path = tmp_path / "file"
    write_file(path, b"old")
    path.chmod(0o640)
    with pytest.raises(RuntimeError), writing(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["file"] and path.read_bytes() == b"old"
    write_file(path, b"new")
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o640


def test_a_row_comes_after_its_files_are_on_the_disk(engine, request_, monkeypatch):
    seen, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append("file"), fsync(number)))
    for name in ("add", "update"):  # the strip of its steps comes later
        write = getattr(engine.run_log, name)
        monkeypatch.setattr(engine.run_log, name, lambda *row, write=write, name=name, **columns: (
            seen.append(name), write(*row, **columns)))
    engine.run(request_)
    assert [name for name, before in zip(seen, [None, *seen], strict=False) if name != before] == [
        "file", "add", "file", "update"]
