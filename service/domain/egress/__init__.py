"""What goes out: through which proxy, trusting whom."""
