"""What runs inside the user's environment: the fork server and the attempts that it forks.

The executor starts `python -m penstock.runner.forkserver FD PARENT SOURCE WORK` and talks to it over one SOCK_SEQPACKET
socket. A message is a header line of words, then a body that may be empty, of at most `PACKET` bytes together.

executor → fork server
    import MODULE                       import it; answered by `imported` or `refused`
    run ID MODULE       + order JSON    fork an attempt; the body is `@PATH` when the JSON lies in a file
    signal ID NUMBER                    send a signal to the attempt's process group
    (end of file)                       kill every attempt and end

fork server → executor
    imported MODULE BYTES               BYTES: size of the server's own log, so that what an import prints is not lost
    refused MODULE      + error JSON    the module cannot be imported; the body is an `ErrorInfo`
    started ID PID SLOT                 sent before the attempt may begin
    unforked ID         + text          no process could be made
    exit ID STATUS                      wait status; its process group is dead by then. After a result, 0 says that it
                                        has left no files

attempt → executor, over the same socket
    result ID WROTE     + JSON          `AttemptFinished`; WROTE is 1 when it wrote to any of its files; the body is
                                        empty when the JSON lies in the file SLOT.result

SLOT names the attempt's working folder inside WORK; beside it lie SLOT.log (its output), SLOT.events (JSON lines of
what it measured), SLOT.commits (JSON lines of what it stored while it ran) and SLOT.result.
"""

PACKET = 96 * 1024
