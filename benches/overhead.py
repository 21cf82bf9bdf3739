#!/usr/bin/env python3
"""Usage: benches/overhead.py [--rounds N] GUEST_DIR

`v2v-pod convert` beside plain `virt-v2v`: the same guest, the same image, the same unprivileged container, in turns.
Prints the wall times, the ratio of each pair, the median ratio with its spread, and the supervisor's peak RSS; writes
benches/results/overhead.json. Both run without /dev/kvm, so that the appliance is the same.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DISKS = ["/source/boot.img", "/source/data.img"]
PLAIN = ["-i", "disk", "-if", "raw", *DISKS, "--root", "first", "-o", "local", "-os", "/out", "-on", "g"]
OURS = ["convert", "-i", "disk", "--format", "raw", *DISKS, "--to", "/out", "--name", "g", "--log-format", "json"]


def peak_rss_kib(name):
    """The largest VmHWM of the processes of that name, in KiB; 0 when there is none."""
    peak = 0
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue  # it has just ended
        if fields.get("Name", "").strip() == name:
            peak = max(peak, int(fields.get("VmHWM", "0 kB").split()[0]))
    return peak


def convert(guest, entrypoint, arguments, watch):
    """Seconds of wall time, and the peak RSS of `watch` in KiB."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as tmp:
        out, work = pathlib.Path(tmp, "out"), pathlib.Path(tmp, "work")
        script = (
            f"source {ROOT}/tests/lab/podman.sh; v2v_work_volume {out}; v2v_work_volume {work}; "
            f"v2v_podman_run --entrypoint {entrypoint} -v {work}:/var/tmp -v {guest}:/source:ro -v {out}:/out -- "
            + " ".join(arguments)
        )
        log = pathlib.Path(tmp, "log")
        begin = time.monotonic()
        with log.open("w") as sink:
            run = subprocess.Popen(["bash", "-c", script], stdout=sink, stderr=sink)
            rss = 0
            while run.poll() is None:
                # VmHWM is a high-water mark, so looking seldom is enough; looking often costs the CPU that is
                # measured. Both sides are looked at alike.
                rss = max(rss, peak_rss_kib(watch))
                try:
                    run.wait(2)
                except subprocess.TimeoutExpired:
                    pass
        seconds = time.monotonic() - begin
        if run.returncode != 0:
            sys.exit(f"{entrypoint} failed with {run.returncode}:\n" + log.read_text()[-3000:])
        return seconds, rss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("guest")
    options = parser.parse_args()
    rows, peak = [], 0
    print(f"{'round':>5} {'virt-v2v s':>11} {'v2v-pod s':>10} {'ratio':>7}")
    for number in range(options.rounds):
        plain = ours = 0.0
        # Who goes first alternates as well: a warm cache helps whoever comes second.
        for which in ("plain", "ours") if number % 2 == 0 else ("ours", "plain"):
            if which == "plain":
                plain, _ = convert(options.guest, "virt-v2v", PLAIN, watch="virt-v2v")
            else:
                ours, rss = convert(options.guest, "/usr/bin/v2v-pod", OURS, watch="v2v-pod")
                peak = max(peak, rss)
        rows.append({"virt_v2v_s": plain, "v2v_pod_s": ours, "ratio": ours / plain})
        print(f"{number + 1:>5} {plain:>11.1f} {ours:>10.1f} {ours / plain:>7.3f}", flush=True)
    ratios = [row["ratio"] for row in rows]
    result = {
        "rounds": rows,
        "median_ratio": statistics.median(ratios),
        "min_ratio": min(ratios),
        "max_ratio": max(ratios),
        "peak_rss_mib": peak / 1024,
    }
    print(f"median ratio {result['median_ratio']:.3f} (from {min(ratios):.3f} to {max(ratios):.3f}); limit 1.02")
    print(f"peak RSS of v2v-pod {result['peak_rss_mib']:.1f} MiB; limit 32")
    results = ROOT / "benches" / "results"
    results.mkdir(exist_ok=True)
    (results / "overhead.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if not shutil.which("podman"):
        sys.exit("podman is not installed: run scripts/install-deps.sh image")
    main()
