// A Vulkan layer for a test: a card that is lost. If the file $PARD_LOSE_DEVICE exists at a submit, it is removed, and the submit
// answers VK_ERROR_DEVICE_LOST, as after a hang. The few structs of the interface between loader and layers that it needs
// are declared here, so that no headers have to be installed.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { DEVICE_LOST = -4, INITIALIZATION_FAILED = -3, LOADER_INSTANCE = 47, LOADER_DEVICE = 48 };

typedef void (*Function)(void);
typedef Function (*GetProcAddr)(void *handle, const char *name);

// VkLayerInstanceLink and VkLayerDeviceLink: the next layer's functions.
typedef struct Link {
    struct Link *next;
    GetProcAddr instance;
    GetProcAddr device; // of an instance's link, something else
} Link;

// VkLayerInstanceCreateInfo and VkLayerDeviceCreateInfo, and the head of every struct that extends another.
typedef struct Chain {
    int32_t type;
    struct Chain *next;
    int32_t function; // 0: a link
    Link *link;
} Chain;

// VkNegotiateLayerInterface.
typedef struct {
    int32_t type;
    void *next;
    uint32_t version;
    GetProcAddr instance, device;
    Function physical_device;
} Interface;

typedef int32_t (*CreateInstance)(const Chain *info, const void *allocator, void **instance);
typedef int32_t (*CreateDevice)(void *physical_device, const Chain *info, const void *allocator, void **device);
typedef int32_t (*QueueSubmit)(void *queue, uint32_t count, const void *submits, uint64_t fence);

static GetProcAddr next_instance, next_device;
static void *the_instance;
static QueueSubmit next_submit;

// The loader's struct of `type` in the chain of `info`.
static Chain *loader_info(const Chain *info, int32_t type) {
    Chain *at = info->next;
    while (at && !(at->type == type && at->function == 0)) at = at->next;
    return at;
}

static int32_t create_instance(const Chain *info, const void *allocator, void **instance) {
    Chain *loader = loader_info(info, LOADER_INSTANCE);
    if (!loader) return INITIALIZATION_FAILED;
    next_instance = loader->link->instance;
    loader->link = loader->link->next;
    int32_t result = ((CreateInstance)next_instance(NULL, "vkCreateInstance"))(info, allocator, instance);
    the_instance = *instance;
    return result;
}

static int32_t create_device(void *physical_device, const Chain *info, const void *allocator, void **device) {
    Chain *loader = loader_info(info, LOADER_DEVICE);
    if (!loader) return INITIALIZATION_FAILED;
    next_device = loader->link->device;
    CreateDevice create = (CreateDevice)loader->link->instance(the_instance, "vkCreateDevice");
    loader->link = loader->link->next;
    int32_t result = create(physical_device, info, allocator, device);
    if (result == 0) next_submit = (QueueSubmit)next_device(*device, "vkQueueSubmit");
    return result;
}

static int32_t queue_submit(void *queue, uint32_t count, const void *submits, uint64_t fence) {
    const char *path = getenv("PARD_LOSE_DEVICE");
    if (path && remove(path) == 0) return DEVICE_LOST;
    return next_submit(queue, count, submits, fence);
}

static Function get_device(void *device, const char *name);

static Function get_instance(void *instance, const char *name) {
    if (strcmp(name, "vkCreateInstance") == 0) return (Function)create_instance;
    if (strcmp(name, "vkCreateDevice") == 0) return (Function)create_device;
    if (strcmp(name, "vkGetInstanceProcAddr") == 0) return (Function)get_instance;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0) return (Function)get_device;
    if (strcmp(name, "vkQueueSubmit") == 0) return (Function)queue_submit;
    return next_instance ? next_instance(instance, name) : NULL;
}

static Function get_device(void *device, const char *name) {
    if (strcmp(name, "vkGetDeviceProcAddr") == 0) return (Function)get_device;
    if (strcmp(name, "vkQueueSubmit") == 0) return (Function)queue_submit;
    return next_device(device, name);
}

EXPORT int32_t vkNegotiateLoaderLayerInterfaceVersion(Interface *interface) {
    if (interface->version > 2) interface->version = 2;
    interface->instance = get_instance;
    interface->device = get_device;
    interface->physical_device = NULL;
    return 0;
}
