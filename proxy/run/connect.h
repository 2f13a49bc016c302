/* connect.h - `tidegate-proxy --connect URL`: one WebSocket connection, to see what an endpoint does
 * Shape:   URL -> addresses, one after the other -> handshake -> Ping, Pong -> Close, Close -> exit code
 *          stdout tells what was seen, a line each: address, tls, status, pong, close
 * Units:   round trip times are printed in milliseconds
 * Owner:   nothing outlives the call
 * Errors:  exit codes for probes: 0 all went well, 1 not (one line on stderr says why), 2 the URL is none
 * Limits:  CONNECT_DEADLINE_MS for all of it, names included; the URL SPEC_MAX_URL bytes
 * Threads: the main thread of a process that does nothing else: takes SIGALRM, unsets http_proxy and socks_proxy
 * Source:  RFC 6455 3 (URLs), 5.5 (Ping, Close), 7; a wss server is verified against OpenSSL's default roots */
#ifndef PROXY_RUN_CONNECT_H
#define PROXY_RUN_CONNECT_H

#define CONNECT_DEADLINE_MS 10000

int connect_main(const char *url);

#endif
