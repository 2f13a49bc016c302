"""What the integration tests share: the proxy as a process, raw peers, certificates, specs."""
