# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""keep.py PROGRAM [ARGUMENT...] [-- PROGRAM [ARGUMENT...]]...    runs programs, and each again a second after it ended

Process 1 of a member. A Swarm whose managers have no quorum replaces no task, and a member must come back all the same.
TERM is passed on; the end comes when all have ended. The orphans that a killed Patroni leaves are reaped here.
"""

from __future__ import annotations

import os
import signal
import sys
import time

PAUSE = 1.0


class Keeper:
    """The programs by number, and which process is which."""

    def __init__(self, commands: list[list[str]]) -> None:
        self.commands = commands
        self.running: dict[int, int] = {}
        self.due: dict[int, float] = dict.fromkeys(range(len(commands)), 0.0)
        self.ending = False

    def start(self, number: int) -> None:
        command = self.commands[number]
        process = os.fork()
        if process == 0:
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, signal.SIG_DFL)
            try:
                os.execvp(command[0], command)  # noqa: S606
            except OSError as error:
                print(f"keep: {command[0]}: {error}", file=sys.stderr, flush=True)
                os._exit(127)
        self.running[process] = number

    def end(self, _number: int, _frame: object) -> None:
        self.ending = True
        for process in list(self.running):
            try:
                os.kill(process, signal.SIGTERM)
            except ProcessLookupError:
                continue

    def reap(self) -> None:
        """Takes note of every process that has ended; those that are not ours were orphans."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            if process not in self.running:
                continue
            number = self.running.pop(process)
            self.due[number] = time.monotonic() + PAUSE
            if not self.ending:
                how = os.waitstatus_to_exitcode(status)
                print(f"keep: {self.commands[number][0]} ended ({how}), starting it again", file=sys.stderr, flush=True)

    def run(self) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self.end)
        while not self.ending or self.running:
            self.reap()
            for number, at in list(self.due.items()):
                if not self.ending and at <= time.monotonic():
                    del self.due[number]
                    self.start(number)
            time.sleep(0.2)


def main() -> None:
    commands: list[list[str]] = [[]]
    for argument in sys.argv[1:]:
        if argument == "--":
            commands.append([])
        else:
            commands[-1].append(argument)
    if not all(commands):
        sys.exit("keep: give at least one program, and one after each --")
    Keeper(commands).run()


if __name__ == "__main__":
    main()
