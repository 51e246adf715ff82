"""`longshore-sim`: will a planned region hold through an outage, how large do queues get, how long does catching up take?"""
