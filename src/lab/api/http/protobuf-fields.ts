/**
 * Field numbers of the API's protobuf messages, for reading what clients send. One message a line:
 *
 *   Name field:type …      numbers count from 1; `n=` jumps; `[]` repeats, `{}` is a map by string, `^` marks a
 *                          message whose fields stand among its parent's in JSON
 *   types: s string, b bytes, t bool, i integer, d double, T time, Q quantity, I int-or-string, J JSON; or a message
 *
 * Sources: generated.proto of k8s.io/api and k8s.io/apimachinery (field names, numbers and types).
 */
export const protobufFields = `
AWSElasticBlockStoreVolumeSource volumeID:s fsType:s partition:i readOnly:t
Affinity nodeAffinity:NodeAffinity podAffinity:PodAffinity podAntiAffinity:PodAntiAffinity
AggregationRule clusterRoleSelectors:LabelSelector[]
AppArmorProfile type:s localhostProfile:s
AttachedVolume name:s devicePath:s
AzureDiskVolumeSource diskName:s diskURI:s cachingMode:s fsType:s readOnly:t kind:s
AzureFileVolumeSource secretName:s shareName:s readOnly:t
Binding metadata:ObjectMeta target:ObjectReference
BoundObjectReference kind:s apiVersion:s name:s uid:s
CSIVolumeSource driver:s readOnly:t fsType:s volumeAttributes:s{} nodePublishSecretRef:LocalObjectReference
Capabilities add:s[] drop:s[]
CephFSVolumeSource monitors:s[] path:s user:s secretFile:s secretRef:LocalObjectReference readOnly:t
CinderVolumeSource volumeID:s fsType:s readOnly:t secretRef:LocalObjectReference
ClientIPConfig timeoutSeconds:i
ClusterRole metadata:ObjectMeta rules:PolicyRule[] aggregationRule:AggregationRule
ClusterRoleBinding metadata:ObjectMeta subjects:Subject[] roleRef:RoleRef
ClusterTrustBundleProjection name:s signerName:s labelSelector:LabelSelector path:s optional:t user:i
Condition type:s status:s observedGeneration:i lastTransitionTime:T reason:s message:s
ConfigMap metadata:ObjectMeta data:s{} binaryData:b{} immutable:t
ConfigMapEnvSource ^localObjectReference:LocalObjectReference optional:t
ConfigMapKeySelector ^localObjectReference:LocalObjectReference key:s optional:t
ConfigMapNodeConfigSource namespace:s name:s uid:s resourceVersion:s kubeletConfigKey:s
ConfigMapProjection ^localObjectReference:LocalObjectReference items:KeyToPath[] 4=optional:t
ConfigMapVolumeSource ^localObjectReference:LocalObjectReference items:KeyToPath[] defaultMode:i optional:t
  defaultUser:i
Container name:s image:s command:s[] args:s[] workingDir:s ports:ContainerPort[] env:EnvVar[]
  resources:ResourceRequirements volumeMounts:VolumeMount[] livenessProbe:Probe readinessProbe:Probe
  lifecycle:Lifecycle terminationMessagePath:s imagePullPolicy:s securityContext:SecurityContext stdin:t stdinOnce:t
  tty:t envFrom:EnvFromSource[] terminationMessagePolicy:s volumeDevices:VolumeDevice[] startupProbe:Probe
  resizePolicy:ContainerResizePolicy[] restartPolicy:s restartPolicyRules:ContainerRestartRule[]
ContainerExtendedResourceRequest containerName:s resourceName:s requestName:s
ContainerImage names:s[] sizeBytes:i
ContainerPort name:s hostPort:i containerPort:i protocol:s hostIP:s
ContainerResizePolicy resourceName:s restartPolicy:s
ContainerRestartRule action:s exitCodes:ContainerRestartRuleOnExitCodes
ContainerRestartRuleOnExitCodes operator:s values:i[]
ContainerState waiting:ContainerStateWaiting running:ContainerStateRunning terminated:ContainerStateTerminated
ContainerStateRunning startedAt:T
ContainerStateTerminated exitCode:i signal:i reason:s message:s startedAt:T finishedAt:T containerID:s
ContainerStateWaiting reason:s message:s
ContainerStatus name:s state:ContainerState lastState:ContainerState ready:t restartCount:i image:s imageID:s
  containerID:s started:t allocatedResources:Q{} resources:ResourceRequirements volumeMounts:VolumeMountStatus[]
  user:ContainerUser allocatedResourcesStatus:ResourceStatus[] stopSignal:s
ContainerUser linux:LinuxContainerUser
ControllerRevision metadata:ObjectMeta data:J revision:i
DaemonEndpoint Port:i
DaemonSet metadata:ObjectMeta spec:DaemonSetSpec status:DaemonSetStatus
DaemonSetCondition type:s status:s lastTransitionTime:T reason:s message:s
DaemonSetSpec selector:LabelSelector template:PodTemplateSpec updateStrategy:DaemonSetUpdateStrategy
  minReadySeconds:i 6=revisionHistoryLimit:i
DaemonSetStatus currentNumberScheduled:i numberMisscheduled:i desiredNumberScheduled:i numberReady:i
  observedGeneration:i updatedNumberScheduled:i numberAvailable:i numberUnavailable:i collisionCount:i
  conditions:DaemonSetCondition[]
DaemonSetUpdateStrategy type:s rollingUpdate:RollingUpdateDaemonSet
DeleteOptions gracePeriodSeconds:i preconditions:Preconditions orphanDependents:t propagationPolicy:s dryRun:s[]
  ignoreStoreReadErrorWithClusterBreakingPotential:t
Deployment metadata:ObjectMeta spec:DeploymentSpec status:DeploymentStatus
DeploymentCondition type:s status:s 4=reason:s message:s lastUpdateTime:T lastTransitionTime:T
DeploymentSpec replicas:i selector:LabelSelector template:PodTemplateSpec strategy:DeploymentStrategy
  minReadySeconds:i revisionHistoryLimit:i paused:t 9=progressDeadlineSeconds:i
DeploymentStatus observedGeneration:i replicas:i updatedReplicas:i availableReplicas:i unavailableReplicas:i
  conditions:DeploymentCondition[] readyReplicas:i collisionCount:i terminatingReplicas:i
DeploymentStrategy type:s rollingUpdate:RollingUpdateDeployment
DownwardAPIProjection items:DownwardAPIVolumeFile[]
DownwardAPIVolumeFile path:s fieldRef:ObjectFieldSelector resourceFieldRef:ResourceFieldSelector mode:i user:i
DownwardAPIVolumeSource items:DownwardAPIVolumeFile[] defaultMode:i defaultUser:i
EmptyDirVolumeSource medium:s sizeLimit:Q mode:i
Endpoint addresses:s[] conditions:EndpointConditions hostname:s targetRef:ObjectReference deprecatedTopology:s{}
  nodeName:s zone:s hints:EndpointHints
EndpointAddress ip:s targetRef:ObjectReference hostname:s nodeName:s
EndpointConditions ready:t serving:t terminating:t
EndpointHints forZones:ForZone[] forNodes:ForNode[]
EndpointPort name:s port:i protocol:s appProtocol:s
EndpointSlice metadata:ObjectMeta endpoints:Endpoint[] ports:discovery.EndpointPort[] addressType:s
EndpointSubset addresses:EndpointAddress[] notReadyAddresses:EndpointAddress[] ports:EndpointPort[]
Endpoints metadata:ObjectMeta subsets:EndpointSubset[]
EnvFromSource prefix:s configMapRef:ConfigMapEnvSource secretRef:SecretEnvSource
EnvVar name:s value:s valueFrom:EnvVarSource
EnvVarSource fieldRef:ObjectFieldSelector resourceFieldRef:ResourceFieldSelector
  configMapKeyRef:ConfigMapKeySelector secretKeyRef:SecretKeySelector fileKeyRef:FileKeySelector
EphemeralContainer ^ephemeralContainerCommon:EphemeralContainerCommon targetContainerName:s
EphemeralContainerCommon name:s image:s command:s[] args:s[] workingDir:s ports:ContainerPort[] env:EnvVar[]
  resources:ResourceRequirements volumeMounts:VolumeMount[] livenessProbe:Probe readinessProbe:Probe
  lifecycle:Lifecycle terminationMessagePath:s imagePullPolicy:s securityContext:SecurityContext stdin:t stdinOnce:t
  tty:t envFrom:EnvFromSource[] terminationMessagePolicy:s volumeDevices:VolumeDevice[] startupProbe:Probe
  resizePolicy:ContainerResizePolicy[] restartPolicy:s restartPolicyRules:ContainerRestartRule[]
EphemeralVolumeSource volumeClaimTemplate:PersistentVolumeClaimTemplate
Event metadata:ObjectMeta involvedObject:ObjectReference reason:s message:s source:EventSource firstTimestamp:T
  lastTimestamp:T count:i type:s eventTime:T series:EventSeries action:s related:ObjectReference
  reportingComponent:s reportingInstance:s
EventSeries count:i lastObservedTime:T
EventSource component:s host:s
Eviction metadata:ObjectMeta deleteOptions:DeleteOptions
EvictionResponder name:s priority:i
ExecAction command:s[]
FCVolumeSource targetWWNs:s[] lun:i fsType:s readOnly:t wwids:s[]
FieldSelectorAttributes rawSelector:s requirements:FieldSelectorRequirement[]
FieldSelectorRequirement key:s operator:s values:s[]
FileKeySelector volumeName:s path:s key:s optional:t
FlexVolumeSource driver:s fsType:s secretRef:LocalObjectReference readOnly:t options:s{}
FlockerVolumeSource datasetName:s datasetUUID:s
ForNode name:s
ForZone name:s
GCEPersistentDiskVolumeSource pdName:s fsType:s partition:i readOnly:t
GRPCAction port:i service:s mode:s
GitRepoVolumeSource repository:s revision:s directory:s
GlusterfsVolumeSource endpoints:s path:s readOnly:t
HTTPGetAction path:s port:I host:s scheme:s httpHeaders:HTTPHeader[] protocol:s
HTTPHeader name:s value:s
HostAlias ip:s hostnames:s[]
HostIP ip:s
HostPathVolumeSource path:s type:s
IPBlock cidr:s except:s[]
ISCSIVolumeSource targetPortal:s iqn:s lun:i iscsiInterface:s fsType:s readOnly:t portals:s[] chapAuthDiscovery:t
  10=secretRef:LocalObjectReference chapAuthSession:t initiatorName:s
ImageVolumeSource reference:s pullPolicy:s
ImageVolumeStatus imageRef:s
KeyToPath key:s path:s mode:i user:i
LabelSelector matchLabels:s{} matchExpressions:LabelSelectorRequirement[]
LabelSelectorAttributes rawSelector:s requirements:LabelSelectorRequirement[]
LabelSelectorRequirement key:s operator:s values:s[]
Lease metadata:ObjectMeta spec:LeaseSpec
LeaseSpec holderIdentity:s leaseDurationSeconds:i acquireTime:T renewTime:T leaseTransitions:i strategy:s
  preferredHolder:s
Lifecycle postStart:LifecycleHandler preStop:LifecycleHandler stopSignal:s
LifecycleHandler exec:ExecAction httpGet:HTTPGetAction tcpSocket:TCPSocketAction sleep:SleepAction
LinuxContainerUser uid:i gid:i supplementalGroups:i[]
LoadBalancerIngress ip:s hostname:s ipMode:s ports:PortStatus[]
LoadBalancerStatus ingress:LoadBalancerIngress[]
LocalObjectReference name:s
ManagedFieldsEntry manager:s operation:s apiVersion:s time:T 6=fieldsType:s fieldsV1:J subresource:s
ModifyVolumeStatus targetVolumeAttributesClassName:s status:s
NFSVolumeSource server:s path:s readOnly:t
Namespace metadata:ObjectMeta spec:NamespaceSpec status:NamespaceStatus
NamespaceCondition type:s status:s 4=lastTransitionTime:T reason:s message:s
NamespaceSpec finalizers:s[]
NamespaceStatus phase:s conditions:NamespaceCondition[]
NetworkPolicy metadata:ObjectMeta spec:NetworkPolicySpec
NetworkPolicyEgressRule ports:NetworkPolicyPort[] to:NetworkPolicyPeer[]
NetworkPolicyIngressRule ports:NetworkPolicyPort[] from:NetworkPolicyPeer[]
NetworkPolicyPeer podSelector:LabelSelector namespaceSelector:LabelSelector ipBlock:IPBlock
NetworkPolicyPort protocol:s port:I endPort:i
NetworkPolicySpec podSelector:LabelSelector ingress:NetworkPolicyIngressRule[] egress:NetworkPolicyEgressRule[]
  policyTypes:s[]
Node metadata:ObjectMeta spec:NodeSpec status:NodeStatus
NodeAddress type:s address:s
NodeAffinity requiredDuringSchedulingIgnoredDuringExecution:NodeSelector
  preferredDuringSchedulingIgnoredDuringExecution:PreferredSchedulingTerm[]
NodeAllocatableMappedResources name:s quantity:Q
NodeAllocatableOverheadResources name:s perPod:Q perContainer:Q
NodeAllocatableResourceClaimStatus resourceClaimName:s containers:s[] 4=mapping:NodeAllocatableMappedResources[]
  overhead:NodeAllocatableOverheadResources[]
NodeCondition type:s status:s lastHeartbeatTime:T lastTransitionTime:T reason:s message:s
NodeConfigSource 2=configMap:ConfigMapNodeConfigSource
NodeConfigStatus assigned:NodeConfigSource active:NodeConfigSource lastKnownGood:NodeConfigSource error:s
NodeDaemonEndpoints kubeletEndpoint:DaemonEndpoint
NodeFeatures supplementalGroupsPolicy:t
NodePodPreemptionPolicy disableResizePreemption:s[]
NodeRuntimeHandler name:s features:NodeRuntimeHandlerFeatures
NodeRuntimeHandlerFeatures recursiveReadOnlyMounts:t userNamespaces:t
NodeSelector nodeSelectorTerms:NodeSelectorTerm[]
NodeSelectorRequirement key:s operator:s values:s[]
NodeSelectorTerm matchExpressions:NodeSelectorRequirement[] matchFields:NodeSelectorRequirement[]
NodeSpec podCIDR:s externalID:s providerID:s unschedulable:t taints:Taint[] configSource:NodeConfigSource
  podCIDRs:s[] podPreemptionPolicy:NodePodPreemptionPolicy
NodeStatus capacity:Q{} allocatable:Q{} phase:s conditions:NodeCondition[] addresses:NodeAddress[]
  daemonEndpoints:NodeDaemonEndpoints nodeInfo:NodeSystemInfo images:ContainerImage[] volumesInUse:s[]
  volumesAttached:AttachedVolume[] config:NodeConfigStatus runtimeHandlers:NodeRuntimeHandler[]
  features:NodeFeatures declaredFeatures:s[]
NodeSwapStatus capacity:i
NodeSystemInfo machineID:s systemUUID:s bootID:s kernelVersion:s osImage:s containerRuntimeVersion:s
  kubeletVersion:s kubeProxyVersion:s operatingSystem:s architecture:s swap:NodeSwapStatus
NonResourceAttributes path:s verb:s
NonResourceRule verbs:s[] nonResourceURLs:s[]
ObjectFieldSelector apiVersion:s fieldPath:s
ObjectMeta name:s generateName:s namespace:s selfLink:s uid:s resourceVersion:s generation:i creationTimestamp:T
  deletionTimestamp:T deletionGracePeriodSeconds:i labels:s{} annotations:s{} ownerReferences:OwnerReference[]
  finalizers:s[] 17=managedFields:ManagedFieldsEntry[]
ObjectReference kind:s namespace:s name:s uid:s apiVersion:s resourceVersion:s fieldPath:s
OwnerReference kind:s 3=name:s uid:s apiVersion:s controller:t blockOwnerDeletion:t
PersistentVolumeClaim metadata:ObjectMeta spec:PersistentVolumeClaimSpec status:PersistentVolumeClaimStatus
PersistentVolumeClaimCondition type:s status:s lastProbeTime:T lastTransitionTime:T reason:s message:s
PersistentVolumeClaimSpec accessModes:s[] resources:VolumeResourceRequirements volumeName:s selector:LabelSelector
  storageClassName:s volumeMode:s dataSource:TypedLocalObjectReference dataSourceRef:TypedObjectReference
  volumeAttributesClassName:s
PersistentVolumeClaimStatus phase:s accessModes:s[] capacity:Q{} conditions:PersistentVolumeClaimCondition[]
  allocatedResources:Q{} 7=allocatedResourceStatuses:s{} currentVolumeAttributesClassName:s
  modifyVolumeStatus:ModifyVolumeStatus healthStatus:VolumeHealthStatus
PersistentVolumeClaimTemplate metadata:ObjectMeta spec:PersistentVolumeClaimSpec
PersistentVolumeClaimVolumeSource claimName:s readOnly:t
PhotonPersistentDiskVolumeSource pdID:s fsType:s
Pod metadata:ObjectMeta spec:PodSpec status:PodStatus
PodAffinity requiredDuringSchedulingIgnoredDuringExecution:PodAffinityTerm[]
  preferredDuringSchedulingIgnoredDuringExecution:WeightedPodAffinityTerm[]
PodAffinityTerm labelSelector:LabelSelector namespaces:s[] topologyKey:s namespaceSelector:LabelSelector
  matchLabelKeys:s[] mismatchLabelKeys:s[]
PodAntiAffinity requiredDuringSchedulingIgnoredDuringExecution:PodAffinityTerm[]
  preferredDuringSchedulingIgnoredDuringExecution:WeightedPodAffinityTerm[]
PodCertificateProjection signerName:s keyType:s maxExpirationSeconds:i credentialBundlePath:s keyPath:s
  certificateChainPath:s userAnnotations:s{} user:i
PodCondition type:s status:s lastProbeTime:T lastTransitionTime:T reason:s message:s observedGeneration:i
PodDNSConfig nameservers:s[] searches:s[] options:PodDNSConfigOption[]
PodDNSConfigOption name:s value:s
PodExtendedResourceClaimStatus requestMappings:ContainerExtendedResourceRequest[] resourceClaimName:s
PodIP ip:s
PodOS name:s
PodReadinessGate conditionType:s
PodResourceClaim name:s 3=resourceClaimName:s resourceClaimTemplateName:s
PodResourceClaimStatus name:s resourceClaimName:s
PodSchedulingGate name:s
PodSchedulingGroup podGroupName:s
PodSecurityContext seLinuxOptions:SELinuxOptions runAsUser:i runAsNonRoot:t supplementalGroups:i[] fsGroup:i
  runAsGroup:i sysctls:Sysctl[] windowsOptions:WindowsSecurityContextOptions fsGroupChangePolicy:s
  seccompProfile:SeccompProfile appArmorProfile:AppArmorProfile supplementalGroupsPolicy:s seLinuxChangePolicy:s
PodSpec volumes:Volume[] containers:Container[] restartPolicy:s terminationGracePeriodSeconds:i
  activeDeadlineSeconds:i dnsPolicy:s nodeSelector:s{} serviceAccountName:s serviceAccount:s nodeName:s
  hostNetwork:t hostPID:t hostIPC:t securityContext:PodSecurityContext imagePullSecrets:LocalObjectReference[]
  hostname:s subdomain:s affinity:Affinity schedulerName:s initContainers:Container[] automountServiceAccountToken:t
  tolerations:Toleration[] hostAliases:HostAlias[] priorityClassName:s priority:i dnsConfig:PodDNSConfig
  shareProcessNamespace:t readinessGates:PodReadinessGate[] runtimeClassName:s enableServiceLinks:t
  preemptionPolicy:s overhead:Q{} topologySpreadConstraints:TopologySpreadConstraint[]
  ephemeralContainers:EphemeralContainer[] setHostnameAsFQDN:t os:PodOS hostUsers:t
  schedulingGates:PodSchedulingGate[] resourceClaims:PodResourceClaim[] resources:ResourceRequirements
  hostnameOverride:s 43=schedulingGroup:PodSchedulingGroup evictionResponders:EvictionResponder[]
PodStatus phase:s conditions:PodCondition[] message:s reason:s hostIP:s podIP:s startTime:T
  containerStatuses:ContainerStatus[] qosClass:s initContainerStatuses:ContainerStatus[] nominatedNodeName:s
  podIPs:PodIP[] ephemeralContainerStatuses:ContainerStatus[] resize:s
  resourceClaimStatuses:PodResourceClaimStatus[] hostIPs:HostIP[] observedGeneration:i
  extendedResourceClaimStatus:PodExtendedResourceClaimStatus allocatedResources:Q{} resources:ResourceRequirements
  nodeAllocatableResourceClaimStatuses:NodeAllocatableResourceClaimStatus[] volumeHealth:PodVolumeHealth[]
PodTemplateSpec metadata:ObjectMeta spec:PodSpec
PodVolumeHealth name:s healthConditions:VolumeHealthCondition[] lastTransitionTime:T
PolicyRule verbs:s[] apiGroups:s[] resources:s[] resourceNames:s[] nonResourceURLs:s[]
PortStatus port:i protocol:s error:s
PortworxVolumeSource volumeID:s fsType:s readOnly:t
Preconditions uid:s resourceVersion:s
PreferredSchedulingTerm weight:i preference:NodeSelectorTerm
Probe ^handler:ProbeHandler initialDelaySeconds:i timeoutSeconds:i periodSeconds:i successThreshold:i
  failureThreshold:i terminationGracePeriodSeconds:i
ProbeHandler exec:ExecAction httpGet:HTTPGetAction tcpSocket:TCPSocketAction grpc:GRPCAction
ProjectedVolumeSource sources:VolumeProjection[] defaultMode:i defaultUser:i
QuobyteVolumeSource registry:s volume:s readOnly:t user:s group:s tenant:s
RBDVolumeSource monitors:s[] image:s fsType:s pool:s user:s keyring:s secretRef:LocalObjectReference readOnly:t
ReplicaSet metadata:ObjectMeta spec:ReplicaSetSpec status:ReplicaSetStatus
ReplicaSetCondition type:s status:s lastTransitionTime:T reason:s message:s
ReplicaSetSpec replicas:i selector:LabelSelector template:PodTemplateSpec minReadySeconds:i
ReplicaSetStatus replicas:i fullyLabeledReplicas:i observedGeneration:i readyReplicas:i availableReplicas:i
  conditions:ReplicaSetCondition[] terminatingReplicas:i
ResourceAttributes namespace:s verb:s group:s version:s resource:s subresource:s name:s
  fieldSelector:FieldSelectorAttributes labelSelector:LabelSelectorAttributes
ResourceClaim name:s request:s
ResourceFieldSelector containerName:s resource:s divisor:Q
ResourceHealth resourceID:s health:s 6=message:s
ResourceRequirements limits:Q{} requests:Q{} claims:ResourceClaim[]
ResourceRule verbs:s[] apiGroups:s[] resources:s[] resourceNames:s[]
ResourceStatus name:s resources:ResourceHealth[]
Role metadata:ObjectMeta rules:PolicyRule[]
RoleBinding metadata:ObjectMeta subjects:Subject[] roleRef:RoleRef
RoleRef apiGroup:s kind:s name:s
RollingUpdateDaemonSet maxUnavailable:I maxSurge:I
RollingUpdateDeployment maxUnavailable:I maxSurge:I
RollingUpdateStatefulSetStrategy partition:i maxUnavailable:I
SELinuxOptions user:s role:s type:s level:s
Scale metadata:ObjectMeta spec:ScaleSpec status:ScaleStatus
ScaleIOVolumeSource gateway:s system:s secretRef:LocalObjectReference sslEnabled:t protectionDomain:s storagePool:s
  storageMode:s volumeName:s fsType:s readOnly:t
ScaleSpec replicas:i
ScaleStatus replicas:i selector:s
SeccompProfile type:s localhostProfile:s
Secret metadata:ObjectMeta data:b{} type:s stringData:s{} immutable:t
SecretEnvSource ^localObjectReference:LocalObjectReference optional:t
SecretKeySelector ^localObjectReference:LocalObjectReference key:s optional:t
SecretProjection ^localObjectReference:LocalObjectReference items:KeyToPath[] 4=optional:t
SecretVolumeSource secretName:s items:KeyToPath[] defaultMode:i optional:t defaultUser:i
SecurityContext capabilities:Capabilities privileged:t seLinuxOptions:SELinuxOptions runAsUser:i runAsNonRoot:t
  readOnlyRootFilesystem:t allowPrivilegeEscalation:t runAsGroup:i procMount:s
  windowsOptions:WindowsSecurityContextOptions seccompProfile:SeccompProfile appArmorProfile:AppArmorProfile
SelfSubjectAccessReview metadata:ObjectMeta spec:SelfSubjectAccessReviewSpec status:SubjectAccessReviewStatus
SelfSubjectAccessReviewSpec resourceAttributes:ResourceAttributes nonResourceAttributes:NonResourceAttributes
SelfSubjectReview metadata:ObjectMeta status:SelfSubjectReviewStatus
SelfSubjectReviewStatus userInfo:UserInfo
SelfSubjectRulesReview metadata:ObjectMeta spec:SelfSubjectRulesReviewSpec status:SubjectRulesReviewStatus
SelfSubjectRulesReviewSpec namespace:s
Service metadata:ObjectMeta spec:ServiceSpec status:ServiceStatus
ServiceAccount metadata:ObjectMeta secrets:ObjectReference[] imagePullSecrets:LocalObjectReference[]
  automountServiceAccountToken:t
ServiceAccountTokenProjection audience:s expirationSeconds:i path:s user:i
ServicePort name:s protocol:s port:i targetPort:I nodePort:i appProtocol:s
ServiceSpec ports:ServicePort[] selector:s{} clusterIP:s type:s externalIPs:s[] 7=sessionAffinity:s loadBalancerIP:s
  loadBalancerSourceRanges:s[] externalName:s externalTrafficPolicy:s healthCheckNodePort:i
  publishNotReadyAddresses:t sessionAffinityConfig:SessionAffinityConfig 17=ipFamilyPolicy:s clusterIPs:s[]
  ipFamilies:s[] allocateLoadBalancerNodePorts:t loadBalancerClass:s internalTrafficPolicy:s trafficDistribution:s
ServiceStatus loadBalancer:LoadBalancerStatus conditions:Condition[]
SessionAffinityConfig clientIP:ClientIPConfig
SleepAction seconds:i
StatefulSet metadata:ObjectMeta spec:StatefulSetSpec status:StatefulSetStatus
StatefulSetCondition type:s status:s lastTransitionTime:T reason:s message:s
StatefulSetOrdinals start:i
StatefulSetPersistentVolumeClaimRetentionPolicy whenDeleted:s whenScaled:s
StatefulSetSpec replicas:i selector:LabelSelector template:PodTemplateSpec
  volumeClaimTemplates:PersistentVolumeClaim[] serviceName:s podManagementPolicy:s
  updateStrategy:StatefulSetUpdateStrategy revisionHistoryLimit:i minReadySeconds:i
  persistentVolumeClaimRetentionPolicy:StatefulSetPersistentVolumeClaimRetentionPolicy ordinals:StatefulSetOrdinals
StatefulSetStatus observedGeneration:i replicas:i readyReplicas:i currentReplicas:i updatedReplicas:i
  currentRevision:s updateRevision:s 9=collisionCount:i conditions:StatefulSetCondition[] availableReplicas:i
StatefulSetUpdateStrategy type:s rollingUpdate:RollingUpdateStatefulSetStrategy
StorageOSVolumeSource volumeName:s volumeNamespace:s fsType:s readOnly:t secretRef:LocalObjectReference
Subject kind:s apiGroup:s name:s namespace:s
SubjectAccessReview metadata:ObjectMeta spec:SubjectAccessReviewSpec status:SubjectAccessReviewStatus
SubjectAccessReviewSpec resourceAttributes:ResourceAttributes nonResourceAttributes:NonResourceAttributes user:s
  groups:s[] extra:authorization.ExtraValue{} uid:s
SubjectAccessReviewStatus allowed:t reason:s evaluationError:s denied:t
SubjectRulesReviewStatus resourceRules:ResourceRule[] nonResourceRules:NonResourceRule[] incomplete:t
  evaluationError:s
Sysctl name:s value:s
TCPSocketAction port:I host:s
Taint key:s value:s effect:s timeAdded:T
TokenReview metadata:ObjectMeta spec:TokenReviewSpec status:TokenReviewStatus
TokenReviewSpec token:s audiences:s[]
TokenReviewStatus authenticated:t user:UserInfo error:s audiences:s[]
TokenRequest metadata:ObjectMeta spec:TokenRequestSpec status:TokenRequestStatus
TokenRequestSpec audiences:s[] 3=boundObjectRef:BoundObjectReference expirationSeconds:i
TokenRequestStatus token:s expirationTimestamp:T
Toleration key:s operator:s value:s effect:s tolerationSeconds:i
TopologySpreadConstraint maxSkew:i topologyKey:s whenUnsatisfiable:s labelSelector:LabelSelector minDomains:i
  nodeAffinityPolicy:s nodeTaintsPolicy:s matchLabelKeys:s[]
TypedLocalObjectReference apiGroup:s kind:s name:s
TypedObjectReference apiGroup:s kind:s name:s namespace:s
UserInfo username:s uid:s groups:s[] extra:authentication.ExtraValue{}
Volume name:s ^volumeSource:VolumeSource
VolumeDevice name:s devicePath:s
VolumeHealthCondition status:s reason:s message:s
VolumeHealthStatus healthConditions:VolumeHealthCondition[] lastTransitionTime:T
VolumeMount name:s readOnly:t mountPath:s subPath:s mountPropagation:s subPathExpr:s recursiveReadOnly:s
  bindMountOptions:s[]
VolumeMountStatus name:s mountPath:s readOnly:t recursiveReadOnly:s volumeStatus:VolumeStatus
VolumeProjection secret:SecretProjection downwardAPI:DownwardAPIProjection configMap:ConfigMapProjection
  serviceAccountToken:ServiceAccountTokenProjection clusterTrustBundle:ClusterTrustBundleProjection
  podCertificate:PodCertificateProjection
VolumeResourceRequirements limits:Q{} requests:Q{}
VolumeSource hostPath:HostPathVolumeSource emptyDir:EmptyDirVolumeSource
  gcePersistentDisk:GCEPersistentDiskVolumeSource awsElasticBlockStore:AWSElasticBlockStoreVolumeSource
  gitRepo:GitRepoVolumeSource secret:SecretVolumeSource nfs:NFSVolumeSource iscsi:ISCSIVolumeSource
  glusterfs:GlusterfsVolumeSource persistentVolumeClaim:PersistentVolumeClaimVolumeSource rbd:RBDVolumeSource
  flexVolume:FlexVolumeSource cinder:CinderVolumeSource cephfs:CephFSVolumeSource flocker:FlockerVolumeSource
  downwardAPI:DownwardAPIVolumeSource fc:FCVolumeSource azureFile:AzureFileVolumeSource
  configMap:ConfigMapVolumeSource vsphereVolume:VsphereVirtualDiskVolumeSource quobyte:QuobyteVolumeSource
  azureDisk:AzureDiskVolumeSource photonPersistentDisk:PhotonPersistentDiskVolumeSource
  portworxVolume:PortworxVolumeSource scaleIO:ScaleIOVolumeSource projected:ProjectedVolumeSource
  storageos:StorageOSVolumeSource csi:CSIVolumeSource ephemeral:EphemeralVolumeSource image:ImageVolumeSource
VolumeStatus image:ImageVolumeStatus
VsphereVirtualDiskVolumeSource volumePath:s fsType:s storagePolicyName:s storagePolicyID:s
WeightedPodAffinityTerm weight:i podAffinityTerm:PodAffinityTerm
WindowsSecurityContextOptions gmsaCredentialSpecName:s gmsaCredentialSpec:s runAsUserName:s hostProcess:t
authentication.ExtraValue items:s[]
authorization.ExtraValue items:s[]
discovery.EndpointPort name:s protocol:s port:i appProtocol:s
events.Event metadata:ObjectMeta eventTime:T series:events.EventSeries reportingController:s reportingInstance:s
  action:s reason:s regarding:ObjectReference related:ObjectReference note:s type:s deprecatedSource:EventSource
  deprecatedFirstTimestamp:T deprecatedLastTimestamp:T deprecatedCount:i
events.EventSeries count:i lastObservedTime:T
`
