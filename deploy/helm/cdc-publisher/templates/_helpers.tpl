{{- /* With the longest suffix, -setup, within the 52 characters of a CronJob's name. */ -}}
{{- define "cdc.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cdc.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cdc.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "cdc.selector" . }}
{{- end -}}

{{- define "cdc.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "cdc.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "cdc.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* Fails when what has no default is given nowhere. */ -}}
{{- define "cdc.complete" -}}
{{- $given := merge (dict) .Values.env .Values.secrets.from .Values.secrets.create -}}
{{- if not (or .Values.fleet.units (hasKey $given "CDC_POSTGRES__DSN") (regexMatch "(?m)^\\s*(postgres\\.)?dsn\\s*=" .Values.settings)) -}}
{{- fail "set [postgres] dsn in settings, or secrets.from.CDC_POSTGRES__DSN" -}}
{{- end -}}
{{- $bootstrap := "bootstrap\\.servers|metadata\\.broker\\.list" -}}
{{- if not (or (hasKey $given "CDC_KAFKA__BOOTSTRAP_SERVERS") (regexMatch $bootstrap .Values.settings)) -}}
{{- fail "set [kafka] \"bootstrap.servers\" in settings, or env.CDC_KAFKA__BOOTSTRAP_SERVERS" -}}
{{- end -}}
{{- range $unit, $_ := .Values.fleet.secrets -}}
{{- if not (hasKey $.Values.fleet.units $unit) -}}
{{- fail (printf "fleet.secrets.%s is of no unit in fleet.units" $unit) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.secrets.from -}}
{{- if hasKey $.Values.secrets.create $name -}}
{{- fail (printf "%s is in secrets.from and in secrets.create" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "cdc.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001 # may read what is mounted
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "cdc.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* What every container of ours is given: settings, secrets as files, contracts. */ -}}
{{- define "cdc.env" -}}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name := concat (keys .Values.secrets.from) (keys .Values.secrets.create) | sortAlpha }}
- name: {{ $name }}_FILE
  value: /run/secrets/cdc/{{ $name }}
{{- end }}
{{- if .Values.fleet.secrets }}
- name: CDC_FLEET__SECRETS
  value: /run/secrets/units
{{- end }}
- name: CDC_HTTP__LISTEN
  value: ":{{ .Values.service.port }}" # every address, of IPv4 and of IPv6
- name: CDC_HTTP__LINGER_SECONDS
  value: {{ .Values.lingerSeconds | quote }}
- name: CDC_DELIVERY__DRAIN_SECONDS
  value: {{ .Values.drainSeconds | quote }}
{{- end -}}

{{- define "cdc.mounts" -}}
- name: settings
  mountPath: /etc/cdc/cdc-publisher.toml
  subPath: cdc-publisher.toml
  readOnly: true
{{- if .Values.fleet.units }}
- name: units
  mountPath: /etc/cdc/units
  readOnly: true
{{- end }}
{{- if .Values.fleet.secrets }}
- name: unit-secrets
  mountPath: /run/secrets/units
  readOnly: true
{{- end }}
{{- if or .Values.contracts.files .Values.contracts.configMap }}
- name: contracts
  mountPath: /etc/cdc/schemas
  readOnly: true
{{- end }}
{{- if or .Values.secrets.from .Values.secrets.create }}
- name: secrets
  mountPath: /run/secrets/cdc
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "cdc.volumes" -}}
- name: settings
  configMap:
    name: {{ include "cdc.name" . }}
{{- if .Values.fleet.units }}
- name: units
  configMap:
    name: {{ include "cdc.name" . }}-units
{{- end }}
{{- if .Values.fleet.secrets }}
- name: unit-secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $unit, $secrets := .Values.fleet.secrets }}
      {{- range $name, $secret := $secrets }}
      - secret:
          name: {{ $secret.name }}
          items: [{ key: {{ $secret.key | quote }}, path: {{ $unit }}/{{ $name }} }]
      {{- end }}
      {{- end }}
{{- end }}
{{- if or .Values.contracts.files .Values.contracts.configMap }}
- name: contracts
  configMap:
    name: {{ .Values.contracts.configMap | default (printf "%s-contracts" (include "cdc.name" .)) }}
{{- end }}
{{- if or .Values.secrets.from .Values.secrets.create }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $name, $secret := .Values.secrets.from }}
      - secret:
          name: {{ $secret.name }}
          items: [{ key: {{ $secret.key | quote }}, path: {{ $name }} }]
      {{- end }}
      {{- if .Values.secrets.create }}
      - secret:
          name: {{ include "cdc.name" . }}
      {{- end }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
