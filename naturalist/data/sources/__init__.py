"""Data sets that the project fetches or draws by itself."""
