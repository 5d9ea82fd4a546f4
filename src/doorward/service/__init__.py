"""Joins the parts into one running firewall: start, reload, drain, stop."""
