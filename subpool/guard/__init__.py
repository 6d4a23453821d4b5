"""The guard: a small process that owns the listening sockets, starts the server's processes and watches them.

    subpool serve    reads the configuration, binds (commands, handover)
      = exec =>      the guard: no pydantic, no event loop, no interpreters (guard, events, ward, relay, ...)
          = start => a server process, joined by a socket pair (served; link: what they say to each other)

Nobody forks: children are started fresh. What a child has is its own, but for the sockets and its end of the pair;
when one side of a pair has gone, the other knows at once. A child whose guard has gone ends itself.
"""
