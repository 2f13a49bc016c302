# kube.sh - the whole product on one machine without a cluster: API server, controller, proxy
# Sourced by deploy/quickstart, whose functions and variables it uses.

# shellcheck shell=bash disable=SC2154

kubectl_() {
    "$kube_bin/kubectl" --kubeconfig "$kubeconfig" "$@"
}

# The command as somebody would type it, and what it says.
show_kubectl() {
    echo "\$ kubectl $*"
    kubectl_ "$@"
}

start_kube() {
    kube_bin=$(tests/kube/build)
    kubeconfig=$(/usr/bin/python3 tests/kube/server.py up --dir "$dir/kube")
    kubectl_ apply -f deploy/crd.yaml
    # kubectl fails at once while there are no conditions at all
    until kubectl_ wait --for=condition=Established --timeout=30s crd/websocketservers.tidegate.dev >"$dir/crd.log" 2>&1; do
        grep -q "conditions accessor" "$dir/crd.log" || fail "$(cat "$dir/crd.log")"
        sleep 0.2
    done
}

stop_kube() {
    [ ! -d "$dir/kube" ] || /usr/bin/python3 tests/kube/server.py down --dir "$dir/kube" >/dev/null
}

start_pair() {
    mkdir "$dir/run"
    "$python" deploy/quickstart.d/echo.py "$echo_port" >"$dir/echo.log" 2>&1 &
    pids+=($!)
    wait_for $! "$dir/echo.log" '^ready$'
    build/controller/tidegate-controller --kubeconfig "$kubeconfig" --run-dir "$dir/run" --allow-local-backends \
        --admin "127.0.0.1:$controller_port" 2>"$dir/controller.log" &
    pids+=($!)
    build/proxy/tidegate-proxy --config "$dir/run/servers.yaml" --run-dir "$dir/run" --max-drain 1s \
        --admin "127.0.0.1:$admin_port" 2>"$dir/proxy.log" &
    pids+=($!)
    wait_for "${pids[1]}" "$dir/controller.log" '"event":"ready"'
    wait_for "${pids[2]}" "$dir/proxy.log" '"event":"ready"'
}

apply_object() {
    sed -e "s/^  port: 10020/  port: $proxy_port/" -e "s/^\(  backend: .*:\)3001/\1$echo_port/" \
        deploy/quickstart.d/websocket-object.yaml >"$dir/websocket-object.yaml"
    cat "$dir/websocket-object.yaml"
    show_kubectl apply -f "$dir/websocket-object.yaml"
    show_kubectl wait --for=condition=Ready --timeout=10s wss/websocketsvr
    show_kubectl get wss
}

edit_object() {
    local edit='{"spec":{"limits":{"maxConnections":1000},"allowedOrigins":["https://example.com"]}}'
    mkfifo "$dir/typed"
    "$python" deploy/quickstart.d/hold.py "$url" <"$dir/typed" >"$dir/held.log" 2>&1 &
    local held=$!
    pids+=("$held")
    exec 3>"$dir/typed"
    echo "before the edit" >&3
    wait_for "$held" "$dir/held.log" '^came back before the edit$'
    show_kubectl patch wss/websocketsvr --type merge -p "$edit"
    kubectl_ wait --for=jsonpath='{.status.observedGeneration}'=2 --timeout=10s wss/websocketsvr >/dev/null
    show_kubectl wait --for=condition=Ready --timeout=10s wss/websocketsvr
    echo "after the edit, through the same socket" >&3
    wait_for "$held" "$dir/held.log" '^came back after the edit, through the same socket$'
    exec 3>&-
    cat "$dir/held.log"
}

kube_try_next() {
    step "Up until Ctrl-C. From another terminal:"
    cat <<EOF
  export KUBECONFIG=$kubeconfig PATH=$kube_bin:\$PATH
  kubectl edit wss/websocketsvr     a wrong value is refused with what would be right
  kubectl describe wss/websocketsvr     conditions and Events
  kubectl explain wss.spec     every field
  $python -m websockets $url     type a line, see it come back
In a browser: http://127.0.0.1:$admin_port/ is the proxy's live page; http://127.0.0.1:$controller_port/metrics is the controller's.
EOF
    step "The controller's log:"
    tail -n 0 -f "$dir/controller.log" &
    pids+=($!)
    wait -n "${pids[@]:0:3}" || true
    fail "a part ended by itself; the controller's last lines: $(tail -n 3 "$dir/controller.log")"
}

kube_main() {
    step "An API server of its own (its first build takes some minutes) and the CRD"
    start_kube
    step "Controller and proxy"
    start_pair
    grep -hE '"event":"ready"' "$dir/controller.log" "$dir/proxy.log"
    step "A WebSocketServer"
    apply_object
    url="ws://localhost:$proxy_port/chat?room=1"
    step "A message through the proxy: $url"
    echo "sent      Hello, Tidegate!"
    printf 'came back '
    "$python" deploy/quickstart.d/send.py "$url" "Hello, Tidegate!"
    step "The object is edited under an open socket"
    edit_object
    step "Its status"
    kubectl_ get wss/websocketsvr -o jsonpath='{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}'
    [ -n "$once" ] || kube_try_next
}
