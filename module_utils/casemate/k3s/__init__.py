"""K3s on a host: its files, flags and objects, how it runs, and how it is changed."""
