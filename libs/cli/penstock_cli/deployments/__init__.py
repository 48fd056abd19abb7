"""`penstock deploy`, `apply`, `deployments`, `triggers`: what starts runs by itself."""
