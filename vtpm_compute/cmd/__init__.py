"""Commands. What a tenant runs needs neither Nova nor oslo nor Windows."""
