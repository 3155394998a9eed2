"""The way in: from files and pushes through conforming, transforming and validating into both stores."""
