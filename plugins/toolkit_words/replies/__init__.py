"""Words of replies that go with features."""
