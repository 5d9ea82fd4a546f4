"""The kernel's part of the gateway: one nftables table, compiled from the policy, and the helper that owns it."""
