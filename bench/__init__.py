"""The bench: Doorward and its peers, measured side by side in one run. README.md says how."""
