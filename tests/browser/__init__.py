"""What a person does, in a real Chromium: one browser and one dashboard for the whole package."""
