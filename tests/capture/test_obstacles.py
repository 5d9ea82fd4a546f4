"""What is missing, in words, for each way in which a machine forbids namespaces."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from doorward.capture.obstacles import why_no_namespace, why_no_rules


@pytest.mark.parametrize(
    ("switch", "value", "words"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces"),
        ("user/max_net_namespaces", "0", "user.max_net_namespaces"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
    ],
)
def test_a_switch_that_is_off_is_named_with_the_way_to_turn_it_on(
    tmp_path: Path, switch: str, value: str, words: str
) -> None:
    path = tmp_path / "sys" / switch
    path.parent.mkdir(parents=True)
    path.write_text(f"{value}\n")
    assert words in why_no_namespace(errno.EPERM, tmp_path)
    assert words in why_no_rules(errno.EPERM, tmp_path)


def test_without_a_switch_the_errno_tells(tmp_path: Path) -> None:
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/user").touch()
    assert "container" in why_no_namespace(errno.EPERM, tmp_path)
    assert "too many" in why_no_namespace(errno.ENOSPC, tmp_path)
    assert "CONFIG_USER_NS" in why_no_namespace(errno.EINVAL, tmp_path)


def test_a_kernel_without_namespaces_is_named(tmp_path: Path) -> None:
    assert "CONFIG_USER_NS" in why_no_namespace(errno.EPERM, tmp_path)


def test_a_packet_filter_that_lacks_something_is_to_be_loaded(tmp_path: Path) -> None:
    assert "modprobe" in why_no_rules(errno.ENOENT, tmp_path)
    assert "modprobe" in why_no_rules(errno.EOPNOTSUPP, tmp_path)
