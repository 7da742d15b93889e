"""Run by the tests in a process of its own: a Ray cluster of two nodes with one CPU each, on loopback, until its input ends."""

import os
import signal
import sys

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

from ray.cluster_utils import Cluster

# A node that dies is noticed within some three seconds instead of 14; one that is only slow, on a busy machine, is not.
HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 5,
}
NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}


def main(folder):
    """Print the address once both nodes are there."""
    head = {**NODE, "temp_dir": folder, "include_dashboard": False, "_system_config": HEALTH_CHECKS}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**NODE)
        print(cluster.address, flush=True)  # noqa: T201  to the tests
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(sys.argv[1])
