"""Rules and answers: who may reach what, and why. Pure: no input or output, no clock, no other room."""
