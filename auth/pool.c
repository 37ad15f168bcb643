#include "auth/pool.h"

/* Threads and loop share the two queues, under one lock, and nothing else. */

#include <pthread.h>
#include <signal.h>
#include <stddef.h>

#include "core/log.h"

#define THREADS   4
#define QUEUE_MAX 1024 /* jobs waiting for a thread: a few seconds of work */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_came = PTHREAD_COND_INITIALIZER;
static struct turns *todo;                                   /* under lock */
static struct pool_job *done_head, **done_tail = &done_head; /* under lock */
static struct loop_wake *wake;
static bool started;

static struct pool_job *
job_of(struct turns_job *waiting)
{
	return (struct pool_job *)((char *)waiting - offsetof(struct pool_job, waiting));
}

static void *
work(void *arg)
{
	(void)arg;
	for (;;) {
		struct turns_job *next;
		struct pool_job *job;

		pthread_mutex_lock(&lock);
		while ((next = turns_take(todo)) == NULL)
			pthread_cond_wait(&work_came, &lock);
		pthread_mutex_unlock(&lock);

		job = job_of(next);
		job->work(job);

		pthread_mutex_lock(&lock);
		job->next = NULL;
		*done_tail = job;
		done_tail = &job->next;
		pthread_mutex_unlock(&lock);
		loop_wake_ring(wake);
	}
	return NULL;
}

/* Threads take no signals: those are the loop's. */
static bool
start_threads(void)
{
	sigset_t all, old;
	unsigned count = 0;
	pthread_t thread;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&thread, NULL, work, NULL) == 0) {
			pthread_detach(thread);
			count++;
		}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (count == 0)
		log_error("-", "threads-failed", "wanted=%d", THREADS);
	return count > 0;
}

static void
on_done(void *arg)
{
	struct pool_job *job, *next;

	(void)arg;
	pthread_mutex_lock(&lock);
	job = done_head;
	done_head = NULL;
	done_tail = &done_head;
	pthread_mutex_unlock(&lock);
	for (; job != NULL; job = next) {
		next = job->next;
		job->done(job, true);
	}
}

void
pool_init(struct loop *loop)
{
	todo = turns_new(QUEUE_MAX);
	wake = loop_wake_new(loop, on_done, NULL);
}

void
pool_run(const char *client, struct pool_job *job)
{
	struct turns_job *dropped = &job->waiting;

	if (!started)
		started = start_threads();
	if (started) {
		pthread_mutex_lock(&lock);
		dropped = turns_add(todo, client, &job->waiting);
		pthread_cond_signal(&work_came);
		pthread_mutex_unlock(&lock);
	}
	if (dropped != NULL) {
		log_warn("-", "auth-overload", "queued=%d client=%s", QUEUE_MAX, client);
		job_of(dropped)->done(job_of(dropped), false);
	}
}
