"""Network namespaces, the links between them, and processes in them, for fleet_soak.py."""
import signal
import subprocess

# All sites are on the first bridge, where this program is too; those that are parted on the second.
BRIDGES = ("ttsoak0", "ttsoak1")
PREFIX = "ttsoak-"


def ip(*arguments, check=True):
    subprocess.run(["ip", *arguments], check=check, capture_output=not check)


class Site:
    """A machine: a namespace with one address."""

    def __init__(self, name, address):
        self.name, self.address = name, address
        self.namespace, self.link = PREFIX + name, f"tts-{name}"


class Network:
    """The namespaces and bridges."""

    def __init__(self):
        self.sites, self.mounts = [], []

    def create(self, sites):
        self.sites = sites
        self.remove()
        for bridge in BRIDGES:
            ip("link", "add", bridge, "type", "bridge")
            ip("link", "set", bridge, "up")
        ip("addr", "add", "10.77.0.254/24", "dev", BRIDGES[0])
        for site in sites:
            ip("netns", "add", site.namespace)
            ip("link", "add", site.link, "type", "veth", "peer", "name", "eth0", "netns",
               site.namespace)
            ip("link", "set", site.link, "master", BRIDGES[0], "up")
            inside = ["-n", site.namespace]
            ip(*inside, "addr", "add", f"{site.address}/24", "dev", "eth0")
            ip(*inside, "link", "set", "lo", "up")
            ip(*inside, "link", "set", "eth0", "up")

    def link(self, site, up):
        """Cuts a site off, or connects it again."""
        ip("-n", site.namespace, "link", "set", "eth0", "up" if up else "down")

    def part(self, sites):
        """These sites reach each other, but none of the others."""
        for site in sites:
            ip("link", "set", site.link, "master", BRIDGES[1])

    def join(self, sites):
        for site in sites:
            ip("link", "set", site.link, "master", BRIDGES[0])

    def remove(self):
        for mount in self.mounts:
            subprocess.run(["umount", "-l", mount], check=False)
        self.mounts = []
        for site in self.sites:
            ip("link", "del", site.link, check=False)
            ip("netns", "del", site.namespace, check=False)
        for bridge in BRIDGES:
            ip("link", "del", bridge, check=False)


class Process:
    """A program in a site. Its log goes on when it is started again."""

    def __init__(self, site, command, directory):
        self.site = site
        self.command = ["ip", "netns", "exec", site.namespace, *command]
        self.log = directory / f"{site.name}.log"
        self.process = None

    def start(self):
        self.end()
        with open(self.log, "ab") as log:
            # `ip netns exec` becomes the command, so that the process id is the command's.
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def signal(self, name):
        self.process.send_signal(getattr(signal, f"SIG{name}"))
        if name == "KILL":
            self.process.wait()

    def wait(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"not ended within {seconds} s"

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
