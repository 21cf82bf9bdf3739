"""The parts of benches/transports.py: lab, vcenter, network, relay, container, inside, lines, figures, report."""
