"""What a process could not say of its own end: killed, or aborted by JAX with its coordinator.

Run beside it as a program, by its path: `python last_words.py PID`. Each line of its input is JSON,
how things stand: `coordinator`, HOST:PORT, or "" where nobody knows; `there`, the sentence if the
process vanishes while that answers, and `gone`, the one if it does not. An empty line: nothing is
left to be said.
"""

import json
import os
import select
import socket
import sys

LOOK = 0.5  # seconds between looks at whether the process is still there


def main(parent: int) -> None:
    said, rest = "", ""
    while os.getppid() == parent:
        if not select.select([0], [], [], LOOK)[0]:
            continue
        if not (read := os.read(0, 1 << 16)):
            break  # it closed its end, so it is gone, or is just about to be
        *lines, rest = (rest + read.decode()).split("\n")
        said = lines[-1] if lines else said
    if said:
        known = json.loads(said)
        sentence = known["there" if answers(known["coordinator"]) else "gone"]
        print(f"\n{sentence}", file=sys.stderr)  # a progress bar may stand on the line


def answers(coordinator: str) -> bool:
    host, _, port = coordinator.rpartition(":")
    if not port:
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]))
