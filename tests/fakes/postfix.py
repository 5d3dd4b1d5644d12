"""A real Postfix that relays through us: Debian's package, unpacked into a folder and run from there, with nothing of the system's.

``POSTHOUSE_TEST_POSTFIX`` names the folder; ``.ci/postfix`` makes it. Postfix changes users, so only root can run it.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fakes.local_stack import clean_environment
from fakes.waiting import eventually_sync
from posthouse.embedded.process import Child, Command, tail

OWNER, GROUP = "daemon", "mail"
"""Who it runs as, and who may hand mail in: they are on every system, and are not Postfix's own."""

_SETTLED_SECONDS = 10

_OF_OWNER = (
    "active",
    "bounce",
    "corrupt",
    "defer",
    "deferred",
    "flush",
    "hold",
    "incoming",
    "private",
    "saved",
    "trace",
)
_OF_GROUP = {"maildrop": 0o730, "public": 0o710}
_SERVICES = """
pickup   unix n - n 60 1 pickup
cleanup  unix n - n - 0 cleanup
qmgr     unix n - n 300 1 qmgr
tlsmgr   unix - - n 1000? 1 tlsmgr
rewrite  unix - - n - - trivial-rewrite
bounce   unix - - n - 0 bounce
defer    unix - - n - 0 bounce
trace    unix - - n - 0 bounce
flush    unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp     unix - - n - - smtp
error    unix - - n - - error
retry    unix - - n - - error
scache   unix - - n - 1 scache
postlog  unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True)
class Relay:
    """Whom everything is handed on to, and how."""

    port: int
    """Of a submission server on ``localhost``, which has to offer STARTTLS."""
    certificate: Path
    """Who vouches for it."""
    mechanisms: str = ""
    """The only ones of SASL to use; empty: the best that both know."""


class Postfix:
    """One instance; use as a context manager.

    Args:
        package: the unpacked package, as ``POSTHOUSE_TEST_POSTFIX`` names it.
        relay: gets all mail.
        returns: ``(domain, port)``: mail for this domain, such as what comes back to the sender, goes to a server on 127.0.0.1
            instead.
    """

    def __init__(self, package: Path, relay: Relay, returns: tuple[str, int]) -> None:
        self._package, self._relay, self._returns = package, relay, returns

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise RuntimeError("Postfix changes users: only root can run it")
        # Not of pytest's: those folders are closed to the users that Postfix runs as.
        self._folder = Path(tempfile.mkdtemp(prefix="posthouse-postfix-"))
        self._folder.chmod(0o755)
        try:
            self._make_folders()
            self._write("main.cf", "".join(f"{name} = {value}\n" for name, value in self._settings().items()))
            self._write("master.cf", _SERVICES)
            self._write("passwords", "")
            libraries = sorted(path.parent for path in self._package.glob("usr/lib/*/libsasl2.so.2"))
            plugins = [*sorted(self._package.glob("usr/lib/*/sasl2")), *sorted(Path("/usr/lib").glob("*/sasl2"))]
            self._environment = clean_environment(
                MAIL_CONFIG=str(self._folder),
                LD_LIBRARY_PATH=_path([self._package / "usr/lib/postfix", *libraries]),
                SASL_PATH=_path(plugins),
            )
            master = self._package / "usr/lib/postfix/sbin/master"
            output = self._folder / "output"
            self._master = Child(Command([master, "-d", "-c", self._folder], log=output, environment=self._environment))
            eventually_sync(self._ready, timeout=30, what="Postfix being ready")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if hasattr(self, "_master"):
            self._master.stop((signal.SIGTERM, 10))
        shutil.rmtree(self._folder)

    def _ready(self) -> bool:
        if self._master.exit_code is not None:
            raise RuntimeError(f"Postfix {self._master.describe_end()}:\n{tail(self._folder / 'output')}\n{self.log}")
        return (self._queue / "public" / "pickup").exists() and (self._queue / "public" / "qmgr").exists()

    @property
    def _queue(self) -> Path:
        return self._folder / "queue"

    @property
    def log(self) -> str:
        """Everything it has logged."""
        path = self._folder / "postfix.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def log_in_as(self, user: str, password: str) -> None:
        """Use another login from now on."""
        self._write("passwords", f"[localhost]:{self._relay.port} {user}:{password}\n")

    def send(self, sender: str, recipients: Sequence[str], message: bytes) -> str:
        """Hand a message in, as an application does on the machine; return its id in the queue once that is known."""
        before = set(re.findall(r"/pickup\[\d+\]: ([0-9A-F]+): uid=", self.log))
        command = [self._package / "usr/sbin/sendmail", "-i", "-f", sender, "--", *recipients]
        subprocess.run(command, input=message, env=self._environment, check=True, timeout=30)

        def taken() -> str:
            new = set(re.findall(r"/pickup\[\d+\]: ([0-9A-F]+): uid=", self.log)) - before
            return next(iter(new), "")

        return eventually_sync(taken, timeout=20, what="Postfix taking the message")

    def results(self, queue_id: str) -> dict[str, str]:
        """Return what became of each recipient of a message at the last try: ``sent``, ``bounced`` or ``deferred``, and why."""
        found = re.findall(
            rf"/(?:smtp|error)\[\d+\]: {queue_id}: to=<([^>]*)>,.* status=(\S+ \(.*\))$", self.log, re.MULTILINE
        )
        return dict(found)

    def gone(self, queue_id: str) -> bool:
        """Say whether nothing of a message is left to do."""
        return re.search(rf"/qmgr\[\d+\]: {queue_id}: removed$", self.log, re.MULTILINE) is not None

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.touch(0o600)
        path.write_text(text)
        # A file that was changed within these two seconds might change further: Postfix would wait until it is older.
        os.utime(path, (time.time() - _SETTLED_SECONDS,) * 2)

    def _make_folders(self) -> None:
        self._queue.mkdir(0o755)
        (self._queue / "pid").mkdir(0o755)
        for name in _OF_OWNER:
            (self._queue / name).mkdir(0o700)
            shutil.chown(self._queue / name, OWNER)
        for name, mode in _OF_GROUP.items():
            (self._queue / name).mkdir()
            shutil.chown(self._queue / name, OWNER, GROUP)
            (self._queue / name).chmod(mode)
        (self._folder / "data").mkdir(0o700)
        shutil.chown(self._folder / "data", OWNER)

    def _settings(self) -> Mapping[str, object]:
        programs = self._package / "usr"
        domain, port = self._returns
        return {
            "compatibility_level": "3.6",
            "queue_directory": self._queue,
            "data_directory": self._folder / "data",
            "command_directory": programs / "sbin",
            "daemon_directory": programs / "lib/postfix/sbin",
            "shlib_directory": programs / "lib/postfix",
            "meta_directory": self._folder,
            "sendmail_path": programs / "sbin/sendmail",
            "mail_owner": OWNER,
            "setgid_group": GROUP,
            "maillog_file": self._folder / "postfix.log",
            "maillog_file_prefixes": self._folder,
            "import_environment": "MAIL_CONFIG MAIL_LOGTAG TZ LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME LD_LIBRARY_PATH SASL_PATH",
            "export_environment": "MAIL_CONFIG TZ LANG LD_LIBRARY_PATH",
            "myhostname": "client.test",
            "mydestination": "",
            "alias_maps": "",
            "alias_database": "",
            "notify_classes": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "smtp_host_lookup": "native",
            "smtp_dns_support_level": "disabled",
            "relayhost": f"[localhost]:{self._relay.port}",
            "transport_maps": f"inline:{{ {{ {domain} = smtp:[127.0.0.1]:{port} }} }}",
            "smtp_tls_security_level": "secure",
            "smtp_tls_policy_maps": f"inline:{{ {{ [127.0.0.1]:{port} = none }} }}",
            "smtp_tls_CAfile": self._relay.certificate,
            "smtp_tls_loglevel": 1,
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_password_maps": f"texthash:{self._folder / 'passwords'}",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_sasl_mechanism_filter": self._relay.mechanisms,
            "smtputf8_enable": "yes",
            # Every line of a session goes to the log; what failed is tried again after a second, not after five minutes.
            "debug_peer_list": "127.0.0.1",
            "debug_peer_level": 1,
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "1s",
            "queue_run_delay": "1s",
            "max_idle": "1s",
        }  # fmt: skip


def _path(folders: Sequence[Path]) -> str:
    return ":".join(str(folder) for folder in folders)
