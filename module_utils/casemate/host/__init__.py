"""The machine: commands, files, accounts, clocks, and the guard that takes changes back. All I/O."""
