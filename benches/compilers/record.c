// A Vulkan layer for a driver that drives nothing: it writes down what an application asks of it.
//
// The folder $PARD_RECORD gets each shader module as HASH.spv, and the file `log` in it a line for
//   device ROBUST ROBUST2         each device: whether robust buffer access and that of VK_EXT_robustness2 are on
//   pipeline HASH ENTRY VARYING   each compute pipeline: its module, entry point, and whether its subgroups may vary in size
//   dispatch HASH X Y Z           each dispatch: the module of its pipeline, and its workgroups
// In place of each pipeline the driver compiles an empty shader: another program compiles the modules, and measures that.
// Semaphores always have their final value, since nobody would signal them.
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#define EXPORT __attribute__((visibility("default")))

enum { MOST = 1 << 16 };

// A handle and what it stands for: modules and pipelines their module's hash, command buffers that of the bound pipeline.
typedef struct {
    uint64_t handle, hash;
} Entry;

static Entry entries[MOST];
static FILE *output;
static PFN_vkGetInstanceProcAddr next_instance;
static PFN_vkGetDeviceProcAddr next_device;
static PFN_vkCreateShaderModule create_module;
static PFN_vkCreateComputePipelines create_pipelines;
static PFN_vkCmdBindPipeline bind_pipeline;
static PFN_vkCmdDispatch dispatch;

static uint64_t *hash_of(uint64_t handle) {
    for (uint32_t at = (uint32_t)(handle * 0x9e3779b97f4a7c15u >> 48), tries = 0; tries < MOST; at = (at + 1) % MOST, tries++) {
        if (entries[at].handle == 0) entries[at].handle = handle;
        if (entries[at].handle == handle) return &entries[at].hash;
    }
    fprintf(stderr, "record: more than %d handles\n", MOST);
    abort();
}

static FILE *open_in_folder(const char *name, const char *mode) {
    const char *folder = getenv("PARD_RECORD");
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder ? folder : ".", name);
    FILE *file = fopen(path, mode);
    if (!file) {
        perror(path);
        abort();
    }
    return file;
}

static FILE *record(void) {
    if (!output) {
        output = open_in_folder("log", "a");
        setvbuf(output, NULL, _IOLBF, 0);
    }
    return output;
}

// FNV-1a.
static uint64_t hash(const void *bytes, size_t count) {
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t at = 0; at < count; at++) sum = (sum ^ ((const uint8_t *)bytes)[at]) * 0x100000001b3u;
    return sum;
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateShaderModule(
    VkDevice device, const VkShaderModuleCreateInfo *info, const VkAllocationCallbacks *allocator, VkShaderModule *module) {
    uint64_t sum = hash(info->pCode, info->codeSize);
    char name[32];
    snprintf(name, sizeof name, "%016" PRIx64 ".spv", sum);
    FILE *file = open_in_folder(name, "wb");
    fwrite(info->pCode, 1, info->codeSize, file);
    fclose(file);
    VkResult result = create_module(device, info, allocator, module);
    if (result == VK_SUCCESS) *hash_of((uint64_t)*module) = sum;
    return result;
}

// void main() {} with workgroups of 1.
static const uint32_t EMPTY[] = {
    0x07230203, 0x00010000, 0, 5, 0,          // SPIR-V 1.0, 5 ids
    0x00020011, 1,                            // OpCapability Shader
    0x0003000e, 0, 1,                         // OpMemoryModel Logical GLSL450
    0x0005000f, 5, 1, 0x6e69616d, 0,          // OpEntryPoint GLCompute %1 "main"
    0x00060010, 1, 17, 1, 1, 1,               // OpExecutionMode %1 LocalSize 1 1 1
    0x00020013, 2,                            // %2 = OpTypeVoid
    0x00030021, 3, 2,                         // %3 = OpTypeFunction %2
    0x00050036, 2, 1, 0, 3,                   // %1 = OpFunction
    0x000200f8, 4,                            // %4 = OpLabel
    0x000100fd, 0x00010038,                   // OpReturn, OpFunctionEnd
};

static VKAPI_ATTR VkResult VKAPI_CALL CreateComputePipelines(
    VkDevice device, VkPipelineCache cache, uint32_t count, const VkComputePipelineCreateInfo *infos,
    const VkAllocationCallbacks *allocator, VkPipeline *pipelines) {
    const VkShaderModuleCreateInfo empty = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = sizeof EMPTY, .pCode = EMPTY};
    VkShaderModule module;
    VkResult result = create_module(device, &empty, NULL, &module);
    for (uint32_t at = 0; at < count && result == VK_SUCCESS; at++) {
        VkComputePipelineCreateInfo info = infos[at];
        uint64_t sum = *hash_of((uint64_t)info.stage.module);
        bool varying = info.stage.flags & VK_PIPELINE_SHADER_STAGE_CREATE_ALLOW_VARYING_SUBGROUP_SIZE_BIT;
        fprintf(record(), "pipeline %016" PRIx64 " %s %d\n", sum, info.stage.pName, varying);
        info.stage.module = module;
        info.stage.pName = "main";
        info.stage.pSpecializationInfo = NULL;
        result = create_pipelines(device, cache, 1, &info, allocator, &pipelines[at]);
        if (result == VK_SUCCESS) *hash_of((uint64_t)pipelines[at]) = sum;
    }
    return result;
}

static VKAPI_ATTR void VKAPI_CALL CmdBindPipeline(VkCommandBuffer commands, VkPipelineBindPoint point, VkPipeline pipeline) {
    *hash_of((uint64_t)(uintptr_t)commands) = *hash_of((uint64_t)pipeline);
    bind_pipeline(commands, point, pipeline);
}

static VKAPI_ATTR void VKAPI_CALL CmdDispatch(VkCommandBuffer commands, uint32_t x, uint32_t y, uint32_t z) {
    fprintf(record(), "dispatch %016" PRIx64 " %u %u %u\n", *hash_of((uint64_t)(uintptr_t)commands), x, y, z);
    dispatch(commands, x, y, z);
}

static VKAPI_ATTR VkResult VKAPI_CALL GetSemaphoreCounterValue(VkDevice device, VkSemaphore semaphore, uint64_t *value) {
    (void)device, (void)semaphore;
    *value = UINT32_MAX;
    return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL WaitSemaphores(VkDevice device, const VkSemaphoreWaitInfo *info, uint64_t timeout) {
    (void)device, (void)info, (void)timeout;
    return VK_SUCCESS;
}

// The loader's link to the next layer, in the chain of `info`; it is moved on, as each layer must.
static void *link_of(const void *info, VkStructureType type) {
    for (VkBaseOutStructure *at = *(VkBaseOutStructure **)((char *)info + offsetof(VkBaseOutStructure, pNext)); at; at = at->pNext) {
        if (at->sType != type) continue;
        VkLayerInstanceCreateInfo *found = (void *)at;
        if (found->function == VK_LAYER_LINK_INFO) return found;
    }
    return NULL;
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateInstance(
    const VkInstanceCreateInfo *info, const VkAllocationCallbacks *allocator, VkInstance *instance) {
    VkLayerInstanceCreateInfo *link = link_of(info, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
    if (!link) return VK_ERROR_INITIALIZATION_FAILED;
    next_instance = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    return ((PFN_vkCreateInstance)next_instance(NULL, "vkCreateInstance"))(info, allocator, instance);
}

static VKAPI_ATTR VkResult VKAPI_CALL CreateDevice(
    VkPhysicalDevice physical, const VkDeviceCreateInfo *info, const VkAllocationCallbacks *allocator, VkDevice *device) {
    VkLayerDeviceCreateInfo *link = link_of(info, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
    if (!link) return VK_ERROR_INITIALIZATION_FAILED;
    PFN_vkGetInstanceProcAddr instance = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    next_device = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    bool robust = info->pEnabledFeatures && info->pEnabledFeatures->robustBufferAccess, robust2 = false;
    for (const VkBaseInStructure *at = info->pNext; at; at = at->pNext) {
        if (at->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2)
            robust |= ((const VkPhysicalDeviceFeatures2 *)at)->features.robustBufferAccess;
        if (at->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT)
            robust2 |= ((const VkPhysicalDeviceRobustness2FeaturesEXT *)at)->robustBufferAccess2;
    }
    VkResult result = ((PFN_vkCreateDevice)instance(NULL, "vkCreateDevice"))(physical, info, allocator, device);
    if (result != VK_SUCCESS) return result;
    fprintf(record(), "device %d %d\n", robust, robust2);
    create_module = (PFN_vkCreateShaderModule)next_device(*device, "vkCreateShaderModule");
    create_pipelines = (PFN_vkCreateComputePipelines)next_device(*device, "vkCreateComputePipelines");
    bind_pipeline = (PFN_vkCmdBindPipeline)next_device(*device, "vkCmdBindPipeline");
    dispatch = (PFN_vkCmdDispatch)next_device(*device, "vkCmdDispatch");
    return result;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL GetInstanceProcAddr(VkInstance instance, const char *name);
static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL GetDeviceProcAddr(VkDevice device, const char *name);

static PFN_vkVoidFunction own(const char *name) {
    static const struct {
        const char *name;
        PFN_vkVoidFunction function;
    } OWN[] = {
        {"vkGetInstanceProcAddr", (PFN_vkVoidFunction)GetInstanceProcAddr},
        {"vkGetDeviceProcAddr", (PFN_vkVoidFunction)GetDeviceProcAddr},
        {"vkCreateInstance", (PFN_vkVoidFunction)CreateInstance},
        {"vkCreateDevice", (PFN_vkVoidFunction)CreateDevice},
        {"vkCreateShaderModule", (PFN_vkVoidFunction)CreateShaderModule},
        {"vkCreateComputePipelines", (PFN_vkVoidFunction)CreateComputePipelines},
        {"vkCmdBindPipeline", (PFN_vkVoidFunction)CmdBindPipeline},
        {"vkCmdDispatch", (PFN_vkVoidFunction)CmdDispatch},
        {"vkGetSemaphoreCounterValue", (PFN_vkVoidFunction)GetSemaphoreCounterValue},
        {"vkGetSemaphoreCounterValueKHR", (PFN_vkVoidFunction)GetSemaphoreCounterValue},
        {"vkWaitSemaphores", (PFN_vkVoidFunction)WaitSemaphores},
        {"vkWaitSemaphoresKHR", (PFN_vkVoidFunction)WaitSemaphores},
    };
    for (size_t at = 0; at < sizeof OWN / sizeof *OWN; at++)
        if (!strcmp(OWN[at].name, name)) return OWN[at].function;
    return NULL;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL GetInstanceProcAddr(VkInstance instance, const char *name) {
    PFN_vkVoidFunction found = own(name);
    return found ? found : next_instance(instance, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL GetDeviceProcAddr(VkDevice device, const char *name) {
    PFN_vkVoidFunction found = own(name);
    return found ? found : next_device(device, name);
}

EXPORT VKAPI_ATTR VkResult VKAPI_CALL vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *layer) {
    layer->pfnGetInstanceProcAddr = GetInstanceProcAddr;
    layer->pfnGetDeviceProcAddr = GetDeviceProcAddr;
    layer->pfnGetPhysicalDeviceProcAddr = NULL;
    return VK_SUCCESS;
}
