"""Commands for people. Each reads its words, asks a room below, and shows the answer."""
