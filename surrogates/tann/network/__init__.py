"""The paper's feed-forward TANN."""
