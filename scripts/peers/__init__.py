"""Ways of asking a judge, which `scripts/bench_peers.py` compares."""
