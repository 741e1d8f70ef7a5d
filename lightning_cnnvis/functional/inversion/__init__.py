"""Images rebuilt from what a layer computes for them (Mahendran & Vedaldi 2014, 2016)."""
