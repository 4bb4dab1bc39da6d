"""What grows: the axes, and the points on each."""
import growth_gate
import growth_load

CONNECTIONS = 32  # of the load, where connections are not what grows
APPS = "/api/v1/apps"
SETTLED = 1.03  # how far the second lowest figure of a point may be above the lowest
SPARE = 500  # descriptors for everything that is not a connection


class Point:
    """One figure: a gate of some size, and the requests that it is asked."""

    def __init__(self, x, series, gate, heads, status=200, connections=CONNECTIONS, hold=0):
        self.x, self.series, self.gate, self.heads, self.status = x, series, gate, heads, status
        self.connections = connections
        self.hold = hold  # further connections, open and silent after a request each
        self.held = []
        self.bursts = []
        self.trouble = None  # why it is not measured at all
        self.last_trouble = None  # why a burst of it failed
        self.requests_file = None

    def settled(self):
        """Whether the lowest figure was reached twice: noise does not hit the same one by chance."""
        lowest = sorted(burst["cpu_us"] for burst in self.bursts)[:2]
        return len(lowest) == 2 and lowest[1] <= lowest[0] * SETTLED


class Axis:
    def __init__(self, name, title, unit, each, note, points, memory="after"):
        self.name, self.title, self.unit, self.each = name, title, unit, each
        self.note, self.points = note, points
        # Which memory is the figure: after the load, or under it where it is the connections that cost memory.
        self.memory = memory
        self.troubles = []

    def gates(self):
        """Each once, in order."""
        return list(dict.fromkeys(point.gate for point in self.points))

    def series(self):
        return list(dict.fromkeys(point.series for point in self.points))


def heads_of(target, fields=()):
    """One request a key, so that keys go round."""
    numbers = growth_load.asked(growth_gate.KEYS, growth_load.KEYS_ASKED)
    return [growth_load.request(target, growth_gate.key_of(number), fields) for number in numbers]


def keys(quick, large, work, _):
    points = []
    for count in (100, 10_000) if quick else (100, 1000, 10_000, 100_000) + ((1_000_000,) if large else ()):
        gate = growth_gate.Gate(f"keys-of-{count}", work, keys=count)
        numbers = growth_load.asked(count, 100_000)
        heads = [growth_load.request(APPS, growth_gate.key_of(number)) for number in numbers]
        points.append(Point(count, "any key", gate, heads))
    return Axis("keys", "Keys", "keys", "key",
                "All keys are asked for in a shuffled order, up to 100,000 of them.", points)


def routes(quick, _large, work, _limit):
    points = []
    for count in (10, 1000) if quick else (10, 100, 1000, 10_000):
        gate = growth_gate.Gate(f"routes-{count}", work, routes=count)
        last = count - 2  # the first of `count` is APPS
        for series, name, status in (
            ("first", "r00000", 200),
            ("middle", f"r{last // 2:05}", 200),
            ("last", f"r{last:05}", 200),
            ("last, as %72…", f"%72{last:05}", 200),
            ("none (404)", "nothing", 404),
        ):
            points.append(Point(count, series, gate, heads_of(f"/api/v1/{name}/42"), status))
    return Axis("routes", "Routes", "routes", "route",
                "All routes are brothers in one folder, `GET /api/v1/r00000/{id}` and so on, and asked for as the "
                "configuration names them; `%72` is an `r`.", points)


def connections(quick, _large, work, limit):
    points, left_out = [], []
    # Held: this process has one end of all points at a time. Asking: scopegate has one more each, to the upstream.
    for series, each in (("silent, beside the load", 1.5), ("all asking", 2)):
        fits = int((limit - SPARE) / each)
        counts = (1, 100) if quick else (1, 10, 100, 1000, 10_000)
        for count in counts:
            if count > fits:
                left_out.append(f"{series}: {count:,} would want {int(count * each) + SPARE:,} descriptors, and the "
                                f"hard limit is {limit:,} (ulimit -Hn); {fits:,} were opened instead.")
            # One more is the look at whether it answers.
            gate = growth_gate.Gate(f"connections-{len(points)}", work, connections=count + CONNECTIONS + 1)
            if series == "all asking":
                points.append(Point(min(count, fits), series, gate, heads_of(APPS), connections=min(count, fits)))
            else:
                points.append(Point(min(count, fits), series, gate, heads_of(APPS), hold=min(count, fits)))
            if count > fits:
                break
    axis = Axis("connections", "Connections", "connections", "connection",
                f"Either so many are held open, silent after one request each, while {CONNECTIONS} others ask; or so "
                "many ask, each as fast as it is answered. `limits.connections` and `limits.in_flight` are raised "
                "where that is more than they let in. Memory is read under load.", points, memory="under")
    axis.troubles += left_out
    return axis


def headers(quick, _large, work, _limit):
    points = []
    for size in (100, 2048) if quick else (100, 400, 1024, 2048, 3600, 4096, 8192, 16_384):
        for series, fields in (("one field", growth_load.one_field), ("fields of 40 B", growth_load.many_fields)):
            gate = growth_gate.Gate(f"headers-{len(points)}", work)
            points.append(Point(size, series, gate, heads_of(APPS, fields(size))))
    return Axis("headers", "Header bytes", "bytes of header", "byte of header",
                "Bytes beside those of `Host` and `Authorization`, forwarded like all others.", points)


AXES = {"keys": keys, "routes": routes, "connections": connections, "headers": headers}
