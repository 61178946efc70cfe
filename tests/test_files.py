"""Files are whole or not there, and a hash is of what is in them alone."""

import hashlib
import os

import numpy as np
import pytest
import torch

from genprior.files import refuse_existing, replacing, sha256, write_folder, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_it_is_whole_and_not_before(tmp_path):
    target = tmp_path / "made" / "file.txt"
    write_text(target, "old")

    def stopped():
        with replacing(target) as file:
            file.write(b"half")
            file.flush()
            assert target.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert (target.read_text(), names(target.parent)) == ("old", ["file.txt"])
    write_text(target, "new")
    assert (target.read_text(), names(target.parent)) == ("new", ["file.txt"])


def test_a_file_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append(os.fstat(handle).st_size), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(b.name), replace(a, b)))
    write_text(tmp_path / "file.txt", "four")
    assert events == [4, "file.txt"]


def test_folders_in_a_folder_are_on_disk_too(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync

    def noted(handle):
        flushed.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def write(folder):
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_text("1")

    monkeypatch.setattr(os, "fsync", noted)
    write_folder(tmp_path / "prior", write)
    assert {"inner", "weights"} <= set(flushed)


def test_an_old_folder_goes_only_when_the_name_of_the_new_one_is_on_disk(tmp_path, monkeypatch):
    """`fsync` of the folder that holds both names: by then the new one is in place, and the old one still there."""
    seen, fsync = [], os.fsync

    def noted(handle):
        if os.path.samestat(os.fstat(handle), os.stat(tmp_path)):
            seen.append([(path / "weights").read_text() for path in sorted(tmp_path.iterdir())])
        fsync(handle)

    for content in "12":
        monkeypatch.setattr(os, "fsync", noted)
        write_folder(tmp_path / "prior", lambda folder, content=content: (folder / "weights").write_text(content))
    assert seen == [["1"], ["1", "2"]]
    assert names(tmp_path) == ["prior"]


def test_names_that_are_no_utf8_are_escaped(tmp_path):
    write_text(tmp_path / "file.txt", "ü \udcff\n")
    assert (tmp_path / "file.txt").read_bytes() == "ü \\udcff\n".encode()


def test_what_is_there_is_refused_by_name_unless_it_is_to_be_replaced(tmp_path):
    there, new = tmp_path / "there", tmp_path / "new"
    there.touch()
    with pytest.raises(FileExistsError, match=r"there exists; choose another path or pass overwrite=True\.$"):
        refuse_existing([new, there], False)
    refuse_existing([new, there], True)
    refuse_existing([new], False)


def test_a_hash_is_that_of_the_same_bytes_by_hashlib(tmp_path):
    x = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).float()
    (tmp_path / "file").write_bytes(b"\0" * (2**20 + 1))
    for part, content in {
        "ü \udcff": b"\xc3\xbc \xff",
        b"bytes": b"bytes",
        tmp_path / "file": b"\0" * (2**20 + 1),
    }.items():
        assert sha256(part) == hashlib.sha256(content).hexdigest()
    for tensor in (x, x > 7, x[0, 0, 0, 0], x.to(memory_format=torch.channels_last), x[:0]):
        assert (
            sha256(tensor)
            == sha256(tensor.numpy().copy(order="C"))
            == hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        )
    assert sha256(x.transpose(2, 3)) != sha256(x)
    assert sha256("a", np.arange(3), "b") == hashlib.sha256(b"a" + np.arange(3).tobytes() + b"b").hexdigest()
