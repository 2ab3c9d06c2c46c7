"""What a finished simulation shows: numbers, a verdict in plain words, one HTML file and CSV tables."""
