"""The parts of benches/diskcopy.py: images, rows, places, copiers, measure, figures, report, plot."""
