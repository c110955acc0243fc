"""Workers that train populations: processes of this machine, and actors of a Ray cluster."""
