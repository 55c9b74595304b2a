"""Tables, verdict, plots, and one self-contained HTML page."""
