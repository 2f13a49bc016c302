{{/* What both policies ask of a pod, and read of it. */}}
{{- define "tidegate.sidecar.conditions" -}}
- name: not-the-nodes-network
  expression: "!object.spec.?hostNetwork.orValue(false)"
- name: linux
  expression: {{ include "tidegate.sidecar.linux" . }}
- name: no-mirror
  expression: "!('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))"
{{- end }}

{{- define "tidegate.sidecar.linux" -}}
'object.spec.?os.?name.orValue("") != "windows" && object.spec.?nodeSelector[?"kubernetes.io/os"].orValue("") != "windows"'
{{- end }}

{{- define "tidegate.sidecar.variables" -}}
- name: annotations
  expression: object.metadata.?annotations.orValue({})
- name: known
  expression: >-
    ["tls-secrets", "log-level", "drain-seconds", "cpu-request", "cpu-limit", "memory-request", "memory-limit"].map(k, "tidegate.dev/" + k)
- name: nameOfSecret
  expression: "'^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$'"
- name: names
  expression: variables.annotations[?"tidegate.dev/tls-secrets"].orValue("").trim()
{{- /* Never more than 33, however many there are: each costs the API server time, with the square of their number. */}}
- name: given
  expression: 'variables.names == "" ? [] : variables.names.split(",", 33).map(s, s.trim())'
- name: secrets
  expression: variables.given.transformList(i, s, i < 32 && s.matches(variables.nameOfSecret) && variables.given.indexOf(s) == i, s)
- name: logLevel
  expression: >-
    variables.annotations[?"tidegate.dev/log-level"].orValue("") in ["debug", "info", "warn", "error"]
    ? variables.annotations["tidegate.dev/log-level"] : "info"
- name: grace
  expression: object.spec.?terminationGracePeriodSeconds.orValue(30)
- name: most # the proxy takes 24 h and no more
  expression: "variables.grace > 86410 ? 86400 : variables.grace > 11 ? variables.grace - 10 : 1"
- name: drain
  expression: >-
    variables.annotations[?"tidegate.dev/drain-seconds"].orValue("").matches("^[1-9][0-9]{0,6}$")
    && int(variables.annotations["tidegate.dev/drain-seconds"]) <= variables.most
    ? int(variables.annotations["tidegate.dev/drain-seconds"]) : variables.most
{{- range $set := list "requests" "limits" }}
- name: {{ $set }}
  expression: >-
    { {{- range $n, $what := list "cpu" "memory" }}
    {{- $key := printf "tidegate.dev/%s-%s" $what (trimSuffix "s" $set) }}
    {{- $default := get (default dict (get $.Values.sidecar.proxy.resources $set)) $what }}
    {{- if $n }}, {{ end }}{{ if not $default }}?{{ end }}"{{ $what }}": isQuantity(variables.annotations[?"{{ $key }}"].orValue(""))
    {{- if $default }} ? variables.annotations["{{ $key }}"] : {{ toString $default | quote }}
    {{- else }} ? optional.of(variables.annotations["{{ $key }}"]) : optional.none()
    {{- end }}
    {{- end }} }
{{- end }}
{{- end }}

{{- define "tidegate.sidecar.security" -}}
Object.spec.initContainers.securityContext{
  runAsNonRoot: true,
  {{- with .Values.runAsUser }}
  runAsUser: {{ int64 . }},
  runAsGroup: {{ int64 . }},
  {{- end }}
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: Object.spec.initContainers.securityContext.capabilities{drop: ["ALL"]},
  seccompProfile: Object.spec.initContainers.securityContext.seccompProfile{type: "RuntimeDefault"}
}
{{- end }}

{{/* Selectors of the bindings */}}
{{- define "tidegate.sidecar.by-pod" -}}
objectSelector:
  matchLabels: {tidegate.dev/inject: "true"}
namespaceSelector:
  matchExpressions:
  - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, kube-node-lease]}
{{- end }}

{{- define "tidegate.sidecar.by-namespace" -}}
objectSelector:
  matchExpressions:
  - {key: tidegate.dev/inject, operator: NotIn, values: ["false"]}
namespaceSelector:
  matchLabels: {tidegate.dev/inject: "true"}
  matchExpressions:
  - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, kube-node-lease]}
{{- end }}
