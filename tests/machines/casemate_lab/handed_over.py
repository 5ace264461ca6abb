"""A machine as somebody hands it over before anybody has hardened it, made of one of the lab that runs.

The lab's own machines have the account that Casemate comes in by. These have what a provider leaves: root and one key;
or the default user of a cloud image, cloud-init's drop-ins, and another firewall that runs.
"""

from __future__ import annotations

import shlex

from casemate_lab.image import run
from casemate_lab.lab import OF_CLOUD_INIT

BARE = """
for user in ops alice; do userdel --remove --force $user 2>&-; done
rm -f /etc/sudoers.d/ops /etc/sudoers.d/casemate-*
"""
"""Nobody is there but root."""
ROOT = """
install -d -m 0700 /root/.ssh
echo {key} >/root/.ssh/authorized_keys
chmod 0600 /root/.ssh/authorized_keys
"""
# What cloud-init and the image's makers leave: https://cloudinit.readthedocs.io, modules users_groups and ssh.
CLOUD = """
useradd --create-home --shell /bin/bash --groups adm,sudo debian
passwd -q -l debian
install -d -m 0700 -o debian -g debian /home/debian/.ssh
echo {key} >/home/debian/.ssh/authorized_keys
chown debian: /home/debian/.ssh/authorized_keys
chmod 0600 /home/debian/.ssh/authorized_keys
printf "%s%s\\n" {refusal} {key} >/root/.ssh/authorized_keys
printf '%s\\n' '# User rules for debian' 'debian ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-cloud-init-users
chmod 0440 /etc/sudoers.d/90-cloud-init-users
echo 'PasswordAuthentication yes' >/etc/ssh/sshd_config.d/50-cloud-init.conf
chmod 0600 /etc/ssh/sshd_config.d/50-cloud-init.conf
systemctl reload ssh
"""
APT = "DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes --no-install-recommends"
UPGRADES = f"{APT} install unattended-upgrades"
FIREWALLS = {
    "ufw": f"{APT} install ufw; ufw allow OpenSSH; ufw --force enable",
    "netfilter-persistent": f"""{APT} install iptables-persistent
printf '%s\\n' '*filter' ':INPUT DROP [0:0]' ':FORWARD DROP [0:0]' ':OUTPUT ACCEPT [0:0]' \
  '-A INPUT -i lo -j ACCEPT' '-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT' \
  '-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT' COMMIT >/etc/iptables/rules.v4
systemctl restart netfilter-persistent""",
}
"""Firewall -> what installs it, with SSH open, and starts it. Debian 12 lets no machine have both."""


def by_root(pid: int, key: str) -> None:
    """Leave root and one key; `pid` is the machine's first process, `key` a line of a public key."""
    _type(pid, BARE + ROOT, key)


def as_cloud_image(pid: int, key: str, firewall: str = "ufw") -> None:
    """Leave the user debian, cloud-init's files, unattended upgrades, and a firewall that runs."""
    _type(pid, f"{BARE}{CLOUD}{UPGRADES}\n{FIREWALLS[firewall]}\n", key)


def _type(pid: int, script: str, key: str) -> None:
    refusal = OF_CLOUD_INIT.replace("ops", "debian").replace("sleep 10", "sleep 1")
    filled_in = script.replace("{key}", shlex.quote(key.strip())).replace("{refusal}", shlex.quote(refusal))
    run("nsenter", f"--target={pid}", "--all", "sh", "-ec", filled_in)
