{{/* Names */}}
{{- define "tidegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tidegate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "tidegate.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tidegate.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Of objects without a namespace: two releases may have one name. No namespace has a dot, so that a-b of c is not b of c-a. */}}
{{- define "tidegate.clusterName" -}}
{{- printf "%s.%s" .Release.Namespace (include "tidegate.fullname" .) }}
{{- end }}

{{- define "tidegate.serviceAccount" -}}
{{- default (include "tidegate.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{/* The controller's own default for --lease */}}
{{- define "tidegate.lease" -}}
{{- printf "tidegate-controller-%s" .Values.gatewayName }}
{{- end }}

{{- define "tidegate.image" -}}
{{- with .Values.image }}
{{- $registry := default .registry (default dict $.Values.global).imageRegistry }}
{{- if $registry }}{{ $registry }}/{{ end }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- with .digest }}@{{ . }}{{ end }}
{{- end }}
{{- end }}

{{/* Labels: the chart's own, over them commonLabels, over them what `more` has; each key once. */}}
{{- define "tidegate.selector" -}}
app.kubernetes.io/name: {{ include "tidegate.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "tidegate.labels" -}}
{{- include "tidegate.labelsOf" (dict "root" . "component" "gateway") }}
{{- end }}

{{- define "tidegate.labelsOf" -}}
{{- $component := .component }}{{ $more := default dict .more }}
{{- with .root }}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63)
  "app.kubernetes.io/name" (include "tidegate.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" (default .Chart.AppVersion .Values.image.tag | trunc 63 | trimAll "-_.")
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/part-of" "tidegate"
  "app.kubernetes.io/component" $component }}
{{- merge dict $more (default dict .Values.commonLabels) $own | toYaml }}
{{- end }}
{{- end }}

{{/* Without the version of the chart: a new one of the same image is no reason to end pods, and with them connections. */}}
{{- define "tidegate.podLabels" -}}
{{- omit (include "tidegate.labelsOf" (dict "root" . "component" "gateway" "more" .Values.podLabels) | fromYaml) "helm.sh/chart" | toYaml }}
{{- end }}

{{/* Pods */}}
{{- define "tidegate.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}{{ $user := int64 . }}
runAsUser: {{ $user }}
runAsGroup: {{ $user }}
fsGroup: {{ $user }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "tidegate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "tidegate.pull" -}}
image: {{ include "tidegate.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "tidegate.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* liveness: the loop turns; readiness: what there is to serve is served */}}
{{- define "tidegate.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}

{{- define "tidegate.metrics" -}}
{{- if or .Values.metrics.enabled .Values.metrics.podMonitor.enabled .Values.hpa.enabled }}yes{{ end }}
{{- end }}

{{/* Where the object of `helm test` lives: the gateway must see it. */}}
{{- define "tidegate.testNamespace" -}}
{{- if .Values.watchNamespaces }}{{ first .Values.watchNamespaces }}{{ else }}{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- define "tidegate.testable" -}}
{{- if .Values.service.managed }}yes{{ end }}
{{- range .Values.service.ports }}{{ if eq (int .port) (int $.Values.test.port) }}yes{{ end }}{{ end }}
{{- end }}
