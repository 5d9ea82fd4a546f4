"""DNS for programs whose queries are caught: judged, answered, and remembered for the connections that follow.

`answering` loads dnspython, which takes a twentieth of a second, so only who answers queries imports it. `memory` does
not.
"""
